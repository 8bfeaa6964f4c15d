"""gRPC interceptors that log every refused call: of servers with threads, and asynchronous ones.

One line for each, as `key=value`::

    refused call=/disinherit.v1.Coordinator/ListModels peer=ipv4:10.0.0.7:51034
    status=UNAUTHENTICATED reason="Expected a valid token, but this one is unknown."

It does not log what gRPC refuses before a call: certificates of other authorities, and messages
above the size limit.
"""

import functools
import json
import logging
from collections.abc import Iterator
from typing import Any, Protocol, cast

import grpc

from disinherit.common.limits import clipped
from disinherit.server.ports.doors import Behaviour, Continuation, Handler, behaviour_of
from disinherit.server.ports.gates import AsyncBehaviour, AsyncContext, AsyncContinuation

_LOG = logging.getLogger(__name__)
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class RefusalLog(grpc.ServerInterceptor):
    """Logs refused calls; must be the first interceptor of a server."""

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Wrap the handler of a call to observe how the call ends."""
        handler = continuation(details)
        if handler is None:
            return handler
        answer = behaviour_of(handler)
        watching = _stream if handler.response_streaming else _answer
        return rewrapped(handler, functools.partial(watching, details.method, answer))


class AsyncRefusalLog(grpc.aio.ServerInterceptor):
    """Logs refused calls of an asynchronous server; must be its first interceptor."""

    async def intercept_service(
        self, continuation: AsyncContinuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Wrap the handler of a call to observe how the call ends."""
        handler = await continuation(details)
        if handler is None:
            return handler
        behaviour = cast("AsyncBehaviour", behaviour_of(handler))
        watching = functools.partial(_awaited, details.method, behaviour)
        return rewrapped(handler, watching)


def rewrapped(handler: Handler, behaviour: Behaviour) -> Handler:
    """Return a handler with another function, which calls that of the handler."""
    # An attribute names the threads that answer.
    behaviour.__dict__.update(vars(behaviour_of(handler)))
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _answer(method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext) -> Any:
    try:
        return behaviour(request, context)
    except Exception:
        _note(method, context)
        raise


def _stream(
    method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext
) -> Iterator[Any]:
    try:
        yield from behaviour(request, context)
    except Exception:
        _note(method, context)
        raise


async def _awaited(
    method: str, behaviour: AsyncBehaviour, request: Any, context: AsyncContext
) -> Any:
    try:
        return await behaviour(request, context)
    except Exception:
        _note(method, context)
        raise


class Ending(Protocol):
    """Methods of gRPC's context that types-grpcio omits."""

    def code(self) -> grpc.StatusCode | None:
        """Return the call's status, or `None` while it has none."""
        ...

    def details(self) -> bytes | str | None:
        """Return the reason, or `None`; of asynchronous calls it is a string."""
        ...


def _note(method: str, context: "grpc.ServicerContext | AsyncContext") -> None:
    """Log a failed call if it was refused."""
    ending = cast("Ending", context)
    code = ending.code()
    if code in _REFUSALS:
        reason = ending.details() or ""
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        _LOG.warning(
            "refused call=%s peer=%s status=%s reason=%s",
            method,
            context.peer(),
            code.name,
            json.dumps(clipped(reason), ensure_ascii=False),
        )
