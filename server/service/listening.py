"""Address and channel of the service: TLS, mTLS, or plaintext on loopback only."""

import errno
import os
import socket
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc

from disinherit.common.connecting import is_loopback
from disinherit.common.errors import InputError
from disinherit.common.limits import PENDING
from disinherit.server.agents.authority import KeyPair, fits
from disinherit.server.agents.credentials import renewing
from disinherit.server.ports.doors import connection_options

_DEFAULT_THREADS = 1  # every call has a door with its own threads
# Keeps idle streams open through routers that drop them after minutes.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
)
_LONGEST_PATH = 100
"""Of a socket; the system's limit is 107 bytes."""

_OF_DESCRIPTORS = 4
"""The operators' share of the process's descriptors, as 1/n."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a TLS channel.

    Attributes:
        certificate: the service's certificate, with its chain.
        key: the service's key.
        client_ca: authority of the clients' certificates; if given, clients must present one
            (mTLS).
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class UiSettings:
    """Settings of the dashboard in the service's process.

    Attributes:
        listen: `host:port`.
        certificate: PEM file with its chain; `None` for plaintext, on a loopback address only.
        key: PEM file of its key.
        client_ca: authority of the certificates that browsers must present; `None` for none.
        host_names: further names under which browsers reach it.

    Raises:
        InputError: if the address is malformed, only one of the files is given, or plaintext would
            leave this machine.
    """

    listen: str = "127.0.0.1:8787"
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    host_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that tokens do not travel in plaintext."""
        host = check_address(self.listen)
        if (self.certificate is None) != (self.key is None):
            raise InputError("Expected certificate and key together, but got only one.")
        if self.certificate is None and not is_loopback(host):
            raise InputError(
                f"Expected certificate and key, here or in [tls], to listen at {self.listen!r}, as "
                "tokens are typed into these pages, but got none. Or listen at 127.0.0.1:8787."
            )


class InnerPort:
    """A port for this process and this user only: a socket in a private folder.

    Args:
        server: the server that gets the port; it is not started yet.

    Attributes:
        target: where a channel finds it.

    Raises:
        InputError: if the name of the folder is too long for a socket.
    """

    def __init__(self, server: grpc.Server) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="disinherit-")
        path = f"{self._folder.name}/coordinator"
        self.target = f"unix:{path}"
        if len(os.fsencode(path)) > _LONGEST_PATH:
            self._folder.cleanup()
            raise InputError(
                f"Expected a folder of at most {_LONGEST_PATH} bytes for the dashboard's socket, "
                f"but got {path!r}. Set TMPDIR to a shorter one, such as /tmp."
            )
        server.add_insecure_port(self.target)

    def close(self) -> None:
        """Remove the folder; call it after the server has stopped."""
        self._folder.cleanup()


def listen(
    address: str, tls: TlsFiles | None, interceptors: Sequence[grpc.ServerInterceptor]
) -> tuple[grpc.Server, int]:
    """Return a gRPC server bound to an address, not yet started, and its port.

    Args:
        address: `host:port`; port 0 for any free port.
        tls: secures the channel; `None` for plaintext, on a loopback address only.
        interceptors: called before every handler.

    Raises:
        InputError: if the address is malformed or taken, plaintext would leave this machine, or a
            file cannot be used.
    """
    host = check_address(address)
    if tls is None and not is_loopback(host):
        raise InputError(
            f"Expected TLS files, or a loopback address such as 127.0.0.1:50051 for plaintext, but "
            f"got {address!r}."
        )
    _check_free(address)
    server = grpc.server(
        ThreadPoolExecutor(_DEFAULT_THREADS, "grpc"),
        interceptors=list(interceptors),
        options=(*_KEEPALIVE, *connection_options(_OF_DESCRIPTORS)),
        maximum_concurrent_rpcs=PENDING.most,
    )
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise InputError(f"Expected an address to listen at, but {address!r}: {error}.") from None
    return server, port


def _check_free(address: str) -> None:
    """Check that an address is free, since gRPC would print its own lines otherwise.

    Raises:
        InputError: if the address is taken, or is not one of this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.removeprefix("[").removesuffix("]"), int(port), type=socket.SOCK_STREAM
        )
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Expected a free address to listen at, but another program listens at "
                f"{address!r}. End it, or choose another address."
            ) from None
        raise InputError(
            f"Expected an address of this machine to listen at, but {address!r}: {error.strerror}."
        ) from None


def check_address(address: str) -> str:
    """Return the host in `host:port`.

    Raises:
        InputError: if it is malformed.

    Example:
        >>> check_address("[::1]:50051")
        '::1'
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(
            f"Expected an address as host:port, such as 127.0.0.1:50051, but got {address!r}."
        )
    return host.removeprefix("[").removesuffix("]")


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    clients = None if tls.client_ca is None else _read(tls.client_ca, "certificate authority")

    def current() -> KeyPair | None:
        """Return the pair on disk; `None` while only one of the two files is replaced."""
        try:
            found = KeyPair(_read(tls.key, "key"), _read(tls.certificate, "certificate"))
        except InputError:
            return None
        return found if fits(found) else None

    begin = KeyPair(_read(tls.key, "key"), _read(tls.certificate, "certificate"))
    shown = iter((begin,))
    return renewing(lambda: next(shown, None) or current(), clients)


def _read(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Expected the {what} in {str(path)!r}, but: {error.strerror}.") from None
    if b"-----BEGIN " not in data:
        raise InputError(f"Expected a {what} in PEM in {str(path)!r}, but it holds none.")
    return data
