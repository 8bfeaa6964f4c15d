"""An interceptor that logs every call that is refused, whoever refused it.

One line each, as `key=value`::

    refused call=/disinherit.v1.Coordinator/ListModels peer=ipv4:10.0.0.7:51034
    status=UNAUTHENTICATED reason="Expected a valid token, but nobody has ..."

What gRPC itself turns away, before there is a call, is not in it: a certificate of another
authority, and a message whose length is above the limit.
"""

import functools
import json
import logging
from collections.abc import Iterator
from typing import Any, Protocol, cast

import grpc

from disinherit.common.limits import clipped
from disinherit.server.ports.doors import Behaviour, Continuation, Handler, behaviour_of

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
    """Logs refused calls; to be the first of a server's interceptors."""

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put a look at how a call ends behind its handler."""
        handler = continuation(details)
        if handler is None:
            return handler
        answer = behaviour_of(handler)
        watching = _stream if handler.response_streaming else _answer
        watched = functools.partial(watching, details.method, answer)
        # Which threads answer is said in an attribute.
        watched.__dict__.update(vars(answer))
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(watched, handler.request_deserializer, handler.response_serializer)


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


class _Ending(Protocol):
    """What gRPC's context has besides, and types-grpcio leaves out."""

    def code(self) -> grpc.StatusCode | None:
        """Return the status that the call ends with, if there is one yet."""
        ...

    def details(self) -> bytes | None:
        """Return the reason, if there is one."""
        ...


def _note(method: str, context: grpc.ServicerContext) -> None:
    """Log a call that ended with an error, if it was refused."""
    ending = cast("_Ending", context)
    code = ending.code()
    if code in _REFUSALS:
        reason = (ending.details() or b"").decode(errors="replace")
        _LOG.warning(
            "refused call=%s peer=%s status=%s reason=%s",
            method,
            context.peer(),
            code.name,
            json.dumps(clipped(reason), ensure_ascii=False),
        )
