"""Calls of the coordinator in the name of a visitor: one channel, the visitor's own token.

The dashboard has no rights of its own.  Each call carries the token of whoever looks at the page.
So the coordinator decides what it may see and do, and its audit log names the visitor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from disinherit.common.connecting import find_cause
from disinherit.common.errors import (
    CampaignError,
    DisinheritError,
    InputError,
    NotAllowedError,
    NotFoundError,
    NotKnownError,
    NotNowError,
    StoreError,
)
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

if TYPE_CHECKING:
    from grpc import UnaryStreamMultiCallable as Streamed
    from grpc import UnaryUnaryMultiCallable as Unary

TIMEOUT_SECONDS = 20.0
"""Longest wait for one answer; a page needs a few."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 3000),
)
"""Of a channel that outlives its coordinator: pages go on within seconds when that is back."""

Told = TypeVar("Told", covariant=True)


class Following(Protocol[Told]):
    """A call that goes on; errors come as `grpc.RpcError`."""

    def __iter__(self) -> Iterator[Told]:
        """Wait for answers."""
        ...

    def cancel(self) -> object:
        """End the call."""
        ...


class _Paged(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
PageAsk = TypeVar("PageAsk", bound=_Paged)
Page = TypeVar("Page", bound=_Page)

_ERRORS: dict[grpc.StatusCode, type[DisinheritError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: NotNowError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.UNAUTHENTICATED: NotKnownError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: NotNowError,
    grpc.StatusCode.UNAVAILABLE: StoreError,
    grpc.StatusCode.DEADLINE_EXCEEDED: StoreError,
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a token.

    Attributes:
        channel: to the coordinator; shared by all visitors.
        address: of the coordinator, for messages and equal commands.
        token: the visitor's; never shown and never written anywhere.
    """

    channel: grpc.Channel
    address: str
    token: str

    def __repr__(self) -> str:
        """Leave the token out: a representation may come into a log."""
        return f"Visitor({self.address!r})"

    def call(
        self, method: "Callable[[CoordinatorStub], Unary[Ask, Answer]]", request: Ask
    ) -> Answer:
        """Make one call and return its answer.

        Raises:
            DisinheritError: if the call fails, with the message of the coordinator.
        """
        try:
            return method(CoordinatorStub(self.channel))(
                request, timeout=TIMEOUT_SECONDS, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise self.explain(error) from None

    def stream(
        self, method: "Callable[[CoordinatorStub], Streamed[Ask, Answer]]", request: Ask
    ) -> Iterator[Answer]:
        """Make a call that ends by itself, and yield its answers.

        Raises:
            DisinheritError: if the call fails, with the message of the coordinator.
        """
        try:
            yield from method(CoordinatorStub(self.channel))(
                request, timeout=3 * TIMEOUT_SECONDS, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise self.explain(error) from None

    def follow(
        self, method: "Callable[[CoordinatorStub], Streamed[Ask, Answer]]", request: Ask
    ) -> "Following[Answer]":
        """Start a call that goes on until somebody cancels it; errors come as `grpc.RpcError`."""
        return method(CoordinatorStub(self.channel))(request, metadata=self._metadata())

    def pages(
        self, method: "Callable[[CoordinatorStub], Unary[PageAsk, Page]]", request: PageAsk
    ) -> Iterator[Page]:
        """Yield all pages.

        Raises:
            DisinheritError: if a call fails.
        """
        while True:
            page = self.call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def explain(self, error: grpc.RpcError) -> DisinheritError:
        """Return the error to show for one of gRPC's, in one line."""
        code = error.code()
        details = " ".join(str(error.details()).split())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            details = (
                f"Expected an answer from {self.address} within {TIMEOUT_SECONDS:g} s, but got "
                "none. Load the page again."
            )
        elif code is grpc.StatusCode.UNAVAILABLE and not details.startswith("Expected"):
            details = (
                f"Expected a coordinator at {self.address}, but {find_cause(details)}. The pages "
                "go on by themselves when it is back."
            )
        elif code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            details = f"{self.address}: {details}"
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            details = (
                f"Expected a coordinator of this release at {self.address}, but it does not know "
                "this call. Upgrade it."
            )
        return _ERRORS.get(code, CampaignError)(details)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)
