"""The dashboard's own server: its address, TLS, and who may reach it."""

import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from disinherit.common.connecting import is_loopback
from disinherit.common.errors import InputError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_SECONDS = 60
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where the dashboard listens.

    Attributes:
        host: address or name of an interface.
        port: 0 for any free port.
        certificate: PEM file with the chain; `None` for plaintext.
        key: PEM file of its key.
        host_names: further names under which browsers reach it.
        client_ca: PEM file of the authority whose certificates browsers must present; `None` for
            browsers without.

    Raises:
        InputError: if plaintext would leave this machine, or only one of the two files is given.
    """

    host: str = "127.0.0.1"
    port: int = 8787
    certificate: Path | None = None
    key: Path | None = None
    host_names: tuple[str, ...] = ()
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        """Check that tokens do not travel in plaintext."""
        if (self.certificate is None) != (self.key is None):
            raise InputError("Expected --tls-cert and --tls-key together, but got only one.")
        if self.certificate is None and not self.local:
            raise InputError(
                f"Expected TLS files (--tls-cert, --tls-key) to listen at {self.host!r}, as tokens "
                "are typed into these pages, but got none. Without them it listens on this machine "
                "only: leave --host out."
            )
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise InputError(f"Expected a PEM file {str(path)!r}, but there is none.")

    @property
    def local(self) -> bool:
        """Whether only programs of this machine reach it."""
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Whether browsers talk TLS to it."""
        return self.certificate is not None

    @property
    def hosts(self) -> Sequence[str]:
        """Host names under which it may be asked."""
        return [one.lower() for one in (*LOOPBACK, self.host, *self.host_names)]


def serve(make: Callable[[int], Starlette], address: Address, ready: Callable[[str], None]) -> None:
    """Serve pages until SIGTERM or Ctrl-C.

    Args:
        make: makes the application, given the port.
        address: where to listen.
        ready: called with the URL when it listens.

    Raises:
        InputError: if the address cannot be used.
    """
    listener = listen(address)
    port = listener.getsockname()[1]
    ready(url(address, port))
    make_server(make(port), address).run([listener])


class _Server(uvicorn.Server):
    """A server that ends open pages before it waits for them, and ends well when it is told to."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM; afterwards the process goes on, which uvicorn's does not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Have the application close what stays open, and stop."""
        self.config.app.state.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make_server(application: Starlette, address: Address) -> uvicorn.Server:
    """Return a server of an application, which writes no log of who asked for what.

    Args:
        application: its `state.close` ends what stays open.
        address: has the files for TLS.
    """
    config = uvicorn.Config(
        application,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        ssl_ca_certs=None if address.client_ca is None else str(address.client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if address.client_ca is None else ssl.CERT_REQUIRED,
        log_level="warning",
        access_log=False,  # the coordinator's audit log says who did what
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
        lifespan="off",
        timeout_notify=_LOOK_SECONDS,
    )
    if address.certificate is not None and address.key is not None:
        config.callback_notify = Renewal(config, address.certificate, address.key).look
    return _Server(config)


class Renewal:
    """A look at the files of TLS: new connections get a certificate that was renewed.

    Args:
        config: of the server.
        certificate: PEM file with the chain.
        key: PEM file of its key.
    """

    def __init__(self, config: uvicorn.Config, certificate: Path, key: Path) -> None:
        self._config = config
        self._files = certificate, key
        self._seen = self._changed()

    async def look(self) -> None:
        """Read the files again if they have changed; while they do not fit, the old ones serve."""
        found = self._changed()
        if found == self._seen or self._config.ssl is None or None in found:
            return
        try:
            self._config.ssl.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError):  # only one of the two is replaced yet
            return
        self._seen = found

    def _changed(self) -> list[int | None]:
        return [one.stat().st_mtime_ns if one.is_file() else None for one in self._files]


def listen(address: Address) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: if the address is taken, is none of this machine, or its files are no
            certificate with its key.
    """
    _check_files(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InputError(
            f"Expected a free address of this machine to listen at, but {address.host}:"
            f"{address.port}: {error.strerror}. Choose another with --host and --port."
        ) from None
    return listener


def _check_files(address: Address) -> None:
    if address.certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(address.certificate, address.key)
        if address.client_ca is not None:
            context.load_verify_locations(address.client_ca)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"Expected a certificate with its key in PEM in {str(address.certificate)!r} and "
            f"{str(address.key)!r}, but: {reason}."
        ) from None


def url(address: Address, port: int) -> str:
    """Return the address for a browser.

    Example:
        >>> url(Address(), 8787)
        'http://127.0.0.1:8787'
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'https' if address.secure else 'http'}://{host}:{port}"
