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
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from disinherit.common.limits import clipped

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


class RefusalLog(grpc.ServerInterceptor):  # type: ignore[misc]
    """Logs refused calls; to be the first of a server's interceptors."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Put a look at how a call ends behind its handler."""
        handler = continuation(details)
        if handler is None:
            return handler
        answer = handler.unary_unary or handler.stream_unary
        if answer is not None:
            watched = functools.partial(_answer, details.method, answer)
        else:
            answer = handler.unary_stream or handler.stream_stream
            watched = functools.partial(_stream, details.method, answer)
        # Which threads answer is said in an attribute.
        watched.__dict__.update(vars(answer))
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(watched, handler.request_deserializer, handler.response_serializer)


def _answer(method: str, behaviour: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
    try:
        return behaviour(request, context)
    except Exception:
        _note(method, context)
        raise


def _stream(
    method: str, behaviour: Callable[[Any, Any], Iterator[Any]], request: Any, context: Any
) -> Iterator[Any]:
    try:
        yield from behaviour(request, context)
    except Exception:
        _note(method, context)
        raise


def _note(method: str, context: Any) -> None:
    """Log a call that ended with an error, if it was refused."""
    code = context.code()
    if code in _REFUSALS:
        reason = (context.details() or b"").decode(errors="replace")
        _LOG.warning(
            "refused call=%s peer=%s status=%s reason=%s",
            method,
            context.peer(),
            code.name,
            json.dumps(clipped(reason), ensure_ascii=False),
        )
