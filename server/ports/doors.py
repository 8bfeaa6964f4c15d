"""Doors of a gRPC server: how many calls each caller may have, and how long one may say nothing.

gRPC's threads are taken before a call's message has come, and a call whose message never comes
keeps its thread for ever.  Behind a door, calls of one kind share threads of their own, so that
they hold up no other kind; a caller has a bounded number of them; and what waits for a message is
ended after some seconds.
"""

import functools
import ipaddress
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from disinherit.common import limits
from disinherit.common.limits import Limit

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""What answers the calls of one method, whatever its messages are."""

Continuation = Callable[[grpc.HandlerCallDetails], "Handler | None"]
"""What returns the handler of a call to an interceptor."""

Behaviour = Callable[[Any, grpc.ServicerContext], Any]

Caller = Callable[[grpc.ServicerContext], Hashable]
"""What returns who calls; it may abort the call."""

_SPARE = 2
"""Threads that are left to refuse those who come when the others are taken."""


class Watchdog:
    """Cancels calls that wait too long for a message; one thread for all of them.

    Args:
        seconds: how long is too long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changed = threading.Condition()
        # In the order of their ends, as all may wait equally long.
        self._waiting: dict[object, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Cancel a call unless the block ends in time.

        Args:
            context: of the call.
        """
        ticket = object()
        with self._changed:
            self._waiting[ticket] = time.monotonic() + self._seconds, context.cancel
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif len(self._waiting) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.pop(ticket, None)

    def _run(self) -> None:
        while True:
            self._next()()

    def _next(self) -> Callable[[], object]:
        with self._changed:
            while True:
                if not self._waiting:
                    self._changed.wait()
                    continue
                ticket, (end, cancel) = next(iter(self._waiting.items()))
                rest = end - time.monotonic()
                if rest <= 0:
                    del self._waiting[ticket]
                    return cancel
                self._changed.wait(rest)


class Door:
    """Lets calls of one kind in.

    Args:
        name: of its threads.
        total: calls at a time.
        each: calls of one caller at a time.
        watchdog: ends those whose message does not come.
        what: the calls in messages, such as "calls".
    """

    def __init__(
        self, name: str, total: Limit, each: Limit, watchdog: Watchdog, what: str = "calls"
    ) -> None:
        self._total, self._each, self._what = total.most, each.most, what
        self._watchdog = watchdog
        self._threads = ThreadPoolExecutor(total.most + _SPARE, name)
        self._lock = threading.Lock()
        self._inside: Counter[Hashable] = Counter()

    def guard(self, handler: Handler, caller: Caller) -> Handler:
        """Return a gRPC handler that asks here first.

        Args:
            handler: answers the calls; one that takes a stream waits for its messages itself.
            caller: who calls, by the call's context; it may abort the call.
        """
        behaviour = behaviour_of(handler)
        if not handler.request_streaming:
            behaviour = self._first(behaviour)
        if handler.response_streaming:
            guarded: Behaviour = functools.partial(self._stream, behaviour, caller)
            make = grpc.stream_stream_rpc_method_handler
        else:
            guarded = functools.partial(self._answer, behaviour, caller)
            make = grpc.stream_unary_rpc_method_handler
        guarded.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def refuse(self, behaviour: Behaviour) -> Handler:
        """Return a handler of calls that are refused at once, whatever they carry.

        Args:
            behaviour: aborts the call; its message is not waited for.
        """
        refusal = functools.partial(behaviour)
        refusal.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return grpc.stream_unary_rpc_method_handler(refusal)

    def close(self) -> None:
        """Let the threads end; to be called when the server has stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(
        self,
        behaviour: Behaviour,
        caller: Caller,
        messages: Iterator[Any],
        context: grpc.ServicerContext,
    ) -> Any:
        with self._entered(caller(context), context):
            return behaviour(messages, context)

    def _stream(
        self,
        behaviour: Behaviour,
        caller: Caller,
        messages: Iterator[Any],
        context: grpc.ServicerContext,
    ) -> Iterator[Any]:
        with self._entered(caller(context), context):
            yield from behaviour(messages, context)

    def _first(self, behaviour: Behaviour) -> Behaviour:
        """Return a behaviour that takes the only message out of a stream, if it comes in time."""

        def taken(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._watchdog.watching(context):
                message = next(messages, None)
            if message is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected a message, but got none.")
            return behaviour(message, context)

        return taken

    @contextmanager
    def _entered(self, caller: Hashable, context: grpc.ServicerContext) -> Iterator[None]:
        with self._lock:
            mine, all_of_them = self._inside[caller], self._inside.total()
            refused = mine >= self._each or all_of_them >= self._total
            if not refused:
                self._inside[caller] += 1
        if refused:
            each = mine >= self._each
            most = f"{self._each if each else self._total} {self._what}"
            whose = " of one caller" if each else ""
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Expected at most {most}{whose} at a time. Try again later.",
            )
        try:
            yield
        finally:
            with self._lock:
                self._inside[caller] -= 1
                if not self._inside[caller]:
                    del self._inside[caller]


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the only one of a handler's four functions that it has."""
    unary = handler.unary_unary or handler.unary_stream
    found = unary or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("Expected a gRPC handler with a function, but got one without.")
    return found


def host_of(context: grpc.ServicerContext) -> str:
    """Return the address that a call comes from, without the port.

    An IPv6 host is its network of 64 bits, as anybody has as many addresses as that.
    """
    peer = context.peer()
    kind, _, address = peer.partition(":")
    if kind == "ipv6":
        host = address.rpartition("]")[0].removeprefix("[").removeprefix("%5B").partition("%")[0]
        try:
            return str(ipaddress.ip_network((host, 64), strict=False))
        except ValueError:
            return host
    return address.rpartition(":")[0] if kind == "ipv4" else peer


def use_descriptors() -> int:
    """Let this process have as many open files and connections as it may, and return how many.

    A service starts with 1,024 where nobody asks for more, and each connection takes one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connection_options(part: int) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a port.

    Args:
        part: connections to it may take one of so many parts of the process's descriptors, so that
            those who fill one port leave some to the others.

    Example:
        >>> dict(connection_options(4))["grpc.server_handshake_timeout_ms"]
        5000
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.CONNECTIONS.most
    if descriptors != resource.RLIM_INFINITY:
        most = min(most, descriptors // part)
    return (
        ("grpc.max_allowed_incoming_connections", most),
        ("grpc.max_concurrent_streams", limits.CONNECTION_CALLS.most),
        ("grpc.server_handshake_timeout_ms", 1000 * limits.HANDSHAKE.most),
        ("grpc.max_connection_idle_ms", 1000 * limits.IDLE.most),
        # Two coordinators on one port would each know half of those who connect.
        ("grpc.so_reuseport", 0),
    )
