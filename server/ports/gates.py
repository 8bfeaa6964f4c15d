"""Admission control of an asynchronous gRPC server: as that of `doors`, without threads.

A gate bounds the concurrent calls of each caller and of all, and ends calls whose message does not
arrive.  It is used from one event loop only, so it needs no lock.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from disinherit.common.limits import GREETING, Limit
from disinherit.common.text import one_line
from disinherit.server.ports.doors import Handler, behaviour_of

AsyncContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The context of an asynchronous call, for any types of messages."""

AsyncCaller = Callable[[AsyncContext], Awaitable[Hashable]]
"""The function that identifies the caller; it may abort the call."""

AsyncBehaviour = Callable[[Any, AsyncContext], Awaitable[Any]]
"""The function that answers a call; of a stream it writes to the context."""

AsyncContinuation = Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"]
"""The function that returns the handler of a call to an asynchronous interceptor."""


async def received(context: AsyncContext) -> Any:
    """Return the next message of a stream, `None` at its end; abort if it is malformed.

    Args:
        context: the call's context.
    """
    try:
        message: Any = await context.read()
    except DecodeError as error:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Expected a well-formed message, but it is damaged: {one_line(str(error))}",
        )
    return None if message is grpc.aio.EOF else message


async def arriving(context: AsyncContext) -> Any:
    """Return the next message of a stream as `received`; abort if it does not arrive in time.

    Args:
        context: the call's context.
    """
    try:
        async with asyncio.timeout(GREETING.most):
            return await received(context)
    except TimeoutError:
        await context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"Expected a message within {GREETING.most} {GREETING.unit}, but got none.",
        )


class Gate:
    """Admission of one kind of calls.

    Args:
        total: limit of concurrent calls.
        each: limit of concurrent calls of one caller, those that wait included.
        what: plural noun for error messages, such as "calls".
        patience: seconds that a call waits for others to end where there are too many; 0 to refuse
            it at once, `None` for as long as its caller waits.
        of_callers: whether `total` bounds callers and not calls: who has a call may have another.
    """

    def __init__(
        self,
        total: Limit,
        each: Limit,
        what: str = "calls",
        patience: float | None = 0.0,
        *,
        of_callers: bool = False,
    ) -> None:
        self._total, self._each, self._what = total.most, each.most, what
        self._patience, self._of_callers = patience, of_callers
        # Calls of each caller: all, and those that have a place or share their caller's.
        self._here: Counter[Hashable] = Counter()
        self._inside: Counter[Hashable] = Counter()
        self._places = asyncio.Semaphore(total.most)

    def guard(self, handler: Handler, caller: AsyncCaller) -> Handler:
        """Return a gRPC handler that passes admission before the given one.

        Args:
            handler: answers the calls; a streaming handler waits for its messages itself.
            caller: identifies the caller by the call's context; may abort the call.
        """
        behaviour = cast("AsyncBehaviour", behaviour_of(handler))
        if not handler.request_streaming:
            behaviour = functools.partial(_first, behaviour)
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        guarded: Any = functools.partial(self._answer, behaviour, caller)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    async def _answer(
        self, behaviour: AsyncBehaviour, caller: AsyncCaller, messages: Any, context: AsyncContext
    ) -> Any:
        who = await caller(context)
        if self._here[who] >= self._each:
            await self._refuse(context, f"{self._each} {self._what} of one caller")
        self._here[who] += 1
        try:
            if not (self._of_callers and who in self._inside) and not await self._enter():
                await self._refuse(context, f"{self._total} {self._what}")
            self._inside[who] += 1
            try:
                return await behaviour(messages, context)
            finally:
                _less(self._inside, who)
                if not (self._of_callers and who in self._inside):
                    self._places.release()
        finally:
            _less(self._here, who)

    async def _enter(self) -> bool:
        """Take a place, in the order in which calls came, and return whether there was one."""
        if self._places.locked() and self._patience == 0.0:
            return False
        try:
            async with asyncio.timeout(self._patience or None):
                return await self._places.acquire()
        except TimeoutError:
            return False

    async def _refuse(self, context: AsyncContext, full: str) -> NoReturn:
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Expected at most {full} at a time. Try again later.",
        )


def _less(counts: "Counter[Hashable]", who: Hashable) -> None:
    """Count one less, and nobody of whom there is none."""
    counts[who] -= 1
    if not counts[who]:
        del counts[who]


async def _first(behaviour: AsyncBehaviour, _: Any, context: AsyncContext) -> Any:
    """Answer a call by the only message of a stream, which arrives within the time limit."""
    message = await arriving(context)
    if message is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected a message, but got none.")
    return await behaviour(message, context)
