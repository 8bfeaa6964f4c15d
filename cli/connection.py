"""Connection of commands to the coordinator's service: options, environment, errors in one line."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, Protocol, TypeVar

from disinherit.cli.commands import CONNECTION, options_in
from disinherit.common.connecting import UNRESOLVED, find_cause, is_loopback
from disinherit.common.errors import (
    CampaignError,
    DisinheritError,
    InputError,
    NotAllowedError,
    NotFoundError,
    NotKnownError,
    UnreachableError,
)

if TYPE_CHECKING:
    import grpc
    from grpc import StreamStreamMultiCallable as Exchanged
    from grpc import UnaryStreamMultiCallable as Streamed
    from grpc import UnaryUnaryMultiCallable as Unary

    from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub


_SERVING = b"\x08\x01"
"""The answer of a health check that is SERVING, as it travels."""


class _Paged(Protocol):
    """A request for one page."""

    page_token: str


class _Page(Protocol):
    """A page with the token of the next one."""

    next_page_token: str


P = ParamSpec("P")
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
PageAsk = TypeVar("PageAsk", bound=_Paged)
Page = TypeVar("Page", bound=_Page)


_connection = options_in(CONNECTION)


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of the service and credentials of the caller.

    Attributes:
        server: `host:port`.
        token: sent with every call.
        ca: PEM file of the authority that signed the service's certificate.
        cert: PEM file of the caller's certificate.
        key: PEM file of its key.
        timeout: seconds to wait for an answer.
        verbose: whether errors have what gRPC says.
    """

    server: Annotated[
        str,
        _connection(
            metavar="HOST:PORT",
            envvar="DISINHERIT_SERVER",
            show_envvar=False,  # the text has it
            help="The coordinator; DISINHERIT_SERVER by default.",
        ),
    ] = "127.0.0.1:50051"
    token: Annotated[
        str,
        _connection(
            envvar="DISINHERIT_TOKEN",
            help="Your access token. Prefer the environment variable to this option.",
        ),
    ] = ""
    ca: Annotated[
        Path | None,
        _connection(
            metavar="PEM",
            envvar="DISINHERIT_CA",
            help="The authority that signed the coordinator's certificate. Without it, plaintext "
            "on this machine and the system's authorities elsewhere.",
        ),
    ] = None
    cert: Annotated[
        Path | None,
        _connection(
            "--tls-cert",
            "--cert",
            metavar="PEM",
            envvar="DISINHERIT_CERT",
            help="Your certificate, for mutual TLS.",
        ),
    ] = None
    key: Annotated[
        Path | None,
        _connection(
            "--tls-key",
            "--key",
            metavar="PEM",
            envvar="DISINHERIT_KEY",
            help="The private key of your certificate.",
        ),
    ] = None
    timeout: Annotated[
        float, _connection(min=0.1, metavar="SECONDS", help="Time to wait for an answer.")
    ] = 30.0
    verbose: Annotated[
        bool, _connection("--verbose", "-v", help="Say why a call failed in gRPC's words, too.")
    ] = False

    def call(
        self, method: "Callable[[CoordinatorStub], Unary[Ask, Answer]]", request: Ask
    ) -> Answer:
        """Make one call and return its answer.

        Args:
            method: selects the call of the stub, such as `lambda stub: stub.GetRequest`.
            request: its message.

        Raises:
            DisinheritError: if the call fails, with the message of the service.
        """
        with self._calling() as stub:
            return method(stub)(
                request, timeout=self.timeout, metadata=self._metadata(), wait_for_ready=False
            )

    def health(self) -> bool:
        """Return whether the service says that it can serve; this needs no token.

        Raises:
            DisinheritError: if it does not answer.
        """
        with self._opened() as channel:
            # By hand, as the package with these two messages comes with coordinators only.
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            return bool(check(b"", timeout=self.timeout) == _SERVING)

    def stream(
        self, method: "Callable[[CoordinatorStub], Streamed[Ask, Answer]]", request: Ask
    ) -> Iterator[Answer]:
        """Make a call and yield its answers, without a time limit.

        Args:
            method: selects the call of the stub.
            request: its message.

        Raises:
            DisinheritError: if the call fails, with the message of the service.
        """
        with self._calling() as stub:
            yield from method(stub)(request, metadata=self._metadata())

    def exchange(
        self,
        method: "Callable[[CoordinatorStub], Exchanged[Ask, Answer]]",
        requests: Iterator[Ask],
    ) -> Iterator[Answer]:
        """Make a call with many messages, and yield their answers, without a time limit.

        Args:
            method: selects the call of the stub.
            requests: its messages.

        Raises:
            DisinheritError: if the call fails, with the message of the service.
        """
        with self._calling() as stub:
            yield from method(stub)(requests, metadata=self._metadata())

    def pages(
        self, method: "Callable[[CoordinatorStub], Unary[PageAsk, Page]]", request: PageAsk
    ) -> Iterator[Page]:
        """Yield all pages.

        Args:
            method: selects the call of the stub.
            request: message for the first page.

        Raises:
            DisinheritError: if a call fails.
        """
        while True:
            page = self.call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self.token:
            return ()
        if not self.token.isascii() or not self.token.isprintable():
            raise InputError("Expected a token of printable ASCII, but got something else.")
        return (("authorization", f"Bearer {self.token}"),)

    @contextmanager
    def _calling(self) -> "Iterator[CoordinatorStub]":
        # Imported here: `audit verify` needs no gRPC, and help stays fast.
        from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

        with self._opened() as channel:
            yield CoordinatorStub(channel)

    @contextmanager
    def _opened(self) -> "Iterator[grpc.Channel]":
        import grpc

        try:
            with self.open_channel() as channel:
                yield channel
        except grpc.RpcError as error:
            raise self._explain(error.code().name, " ".join(str(error.details()).split())) from None

    def open_channel(self, options: Sequence[tuple[str, int]] = ()) -> "grpc.Channel":
        """Return a channel to the service, which the caller closes.

        Args:
            options: gRPC's options of the channel.

        Raises:
            InputError: if a file cannot be read, or a key is missing.
        """
        import grpc

        if not any((self.ca, self.cert, self.key)) and _is_loopback(self.server):
            return grpc.insecure_channel(self.server, options)
        authority, chain, key = (_read(path) for path in (self.ca, self.cert, self.key))
        if (chain is None) != (key is None):
            names = ("certificate", "private key")
            given, missing = names if key is None else reversed(names)
            raise InputError(
                f"Expected a certificate and its private key together, but got the {given} alone. "
                f"Give the {missing} as well."
            )
        credentials = grpc.ssl_channel_credentials(authority, key, chain)
        return grpc.secure_channel(self.server, credentials, options)

    def _trust(self) -> str:
        if self.ca is None and _is_loopback(self.server):
            return f"if it uses TLS, the certificate of its authority with --ca{_proxies()}"
        return f"the authority to trust with --ca{_proxies()}"

    def _explain(self, code: str, details: str) -> DisinheritError:
        """Return the error for a failed call; what gRPC says itself is for `--verbose` only."""
        more = f" ({code}: {details})" if self.verbose else ""
        ours = details.startswith("Expected")
        if code == "DEADLINE_EXCEEDED":
            return UnreachableError(
                f"Expected an answer from {self.server} within {self.timeout:g} s, but got none. "
                f"Run the same command again, or wait longer with --timeout.{more}"
            )
        if code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and ours:
            return UnreachableError(f"{details} Run the same command again.{more}")
        if code == "UNAVAILABLE":
            cause = find_cause(details)
            advice = (
                "Give its address with --server or DISINHERIT_SERVER."
                if cause == UNRESOLVED
                else "Start one with disinherit serve, or give its address with --server or "
                f"DISINHERIT_SERVER, and {self._trust()}."
            )
            return UnreachableError(
                f"Expected a coordinator at {self.server}, but {cause}. {advice}{more}"
            )
        if code == "UNAUTHENTICATED" and not self.token:
            return NotKnownError(
                f"Expected a token for {self.server}, but got none. Give one with "
                f"DISINHERIT_TOKEN.{more}"
            )
        if code == "UNIMPLEMENTED":
            return InputError(
                f"Expected {self.server} to know this call, but it does not. Its release is older "
                f"than that of this program: see disinherit status.{more}"
            )
        if code in ("INTERNAL", "UNKNOWN", "CANCELLED"):
            return CampaignError(
                f"Expected {self.server} to answer this call, but it failed. See the coordinator's "
                f"log.{more}"
            )
        if code == "PERMISSION_DENIED":
            details += " Give another token with DISINHERIT_TOKEN."
        return _REFUSALS.get(code, InputError)(details + more)


_REFUSALS: dict[str, type[InputError]] = {
    "NOT_FOUND": NotFoundError,
    "PERMISSION_DENIED": NotAllowedError,
    "UNAUTHENTICATED": NotKnownError,
}


def _proxies() -> str:
    """Return a hint if the environment sets a proxy, which gRPC then uses."""
    names = [name for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)]
    return f"; {names[0]} sets a proxy: no_proxy excludes this host from it" if names else ""


def connected(
    command: Callable[Concatenate[Connection, P], int],
) -> Callable[..., int]:
    """Add the options of a connection to a command, after its own.

    Args:
        command: takes a connection as its first argument.

    Returns:
        The command with the signature for Typer.
    """
    first, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(connection: Connection, *args: P.args, **options: P.kwargs) -> int:
        return command(connection, *args, **options)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, first)]
    )
    return spread(Connection, first.name)(run)


def spread(kind: type, name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that replaces a command's parameter by options for Typer.

    Args:
        kind: type of the parameter, a data class whose fields are annotated as options.
        name: the parameter.
    """
    fields = inspect.signature(kind).parameters

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        seen: list[inspect.Parameter] = []
        for one in inspect.signature(command).parameters.values():
            seen += fields.values() if one.name == name else [one]

        @functools.wraps(command)
        def run(*args: Any, **options: Any) -> int:
            chosen = {field: options.pop(field) for field in fields}
            return command(*args, **options, **{name: kind(**chosen)})

        seen = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in seen]
        run.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in seen} | {"return": int}
        return run

    return decorate


def _is_loopback(server: str) -> bool:
    return is_loopback(server.rpartition(":")[0].removeprefix("[").removesuffix("]"))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Expected a PEM file {str(path)!r}, but: {error.strerror}.") from None
