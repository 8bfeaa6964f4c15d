"""gRPC interceptor that measures every call."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc

from disinherit.server.ports.doors import Behaviour, Continuation, Handler, behaviour_of
from disinherit.server.ports.interceptors import Ending, rewrapped

Ended = Callable[[str, str, float | None], None]
"""Called with the name of a method, the status, and the seconds of a call that is no stream."""


class CallMeter(grpc.ServerInterceptor):
    """Measures calls of known methods; must be the first interceptor of a server.

    Args:
        ended: called when a call has ended, from its thread.
    """

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Wrap the handler of a call to observe how long it takes and how it ends."""
        handler = continuation(details)
        if handler is None:
            return None
        answer = behaviour_of(handler)
        measuring = self._stream if handler.response_streaming else self._answer
        method = details.method.removeprefix("/")
        return rewrapped(handler, functools.partial(measuring, method, answer))

    def _answer(
        self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext
    ) -> Any:
        started = time.perf_counter()
        code = "OK"
        try:
            return behaviour(request, context)
        except BaseException:
            code = _code(context)
            raise
        finally:
            self._ended(method, code, time.perf_counter() - started)

    def _stream(
        self, method: str, behaviour: Behaviour, request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        code = "OK"
        try:
            yield from behaviour(request, context)
        except BaseException:
            code = _code(context)
            raise
        finally:
            self._ended(method, code, None)


def _code(context: grpc.ServicerContext) -> str:
    """Return the status of a call that failed, or that its caller gave up."""
    code = cast("Ending", context).code()
    if code is not None:
        return code.name
    return "UNKNOWN" if context.is_active() else "CANCELLED"
