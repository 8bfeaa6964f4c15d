"""Admission control of a gRPC server: limits on concurrent and silent calls, per caller.

gRPC assigns a thread before the message of a call has arrived; a call without a message would keep
it for ever.  A door gives each kind of call its own threads, so that kinds do not block each other.
It bounds the concurrent calls of each caller, and cancels calls whose message does not arrive.
"""

import functools
import ipaddress
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from disinherit.common import limits
from disinherit.common.limits import Limit

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""The handler of one method, for any types of messages."""

Continuation = Callable[[grpc.HandlerCallDetails], "Handler | None"]
"""The function that returns the handler of a call to an interceptor."""

Behaviour = Callable[[Any, grpc.ServicerContext], Any]

Caller = Callable[[grpc.ServicerContext], Hashable]
"""The function that identifies the caller; it may abort the call."""

_SPARE = 2
"""Extra threads, to refuse calls while all others are busy."""


class Watchdog:
    """One thread that cancels all calls that wait too long for a message.

    Args:
        seconds: maximum wait for a message.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._changed = threading.Condition()
        # In the order of their deadlines: all waits have the same length.
        self._waiting: dict[object, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None
        self._asleep = False

    @contextmanager
    def watching(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Cancel a call if the block takes too long.

        Args:
            context: the call's context.
        """
        ticket = object()
        with self._changed:
            self._waiting[ticket] = time.monotonic() + self._seconds, context.cancel
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
            elif self._asleep:
                self._asleep = False
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
                    # No call that comes meanwhile is late before that, so none need wake it.
                    self._changed.wait(self._seconds)
                    if not self._waiting:
                        self._asleep = True
                        self._changed.wait()
                    continue
                ticket, (end, cancel) = next(iter(self._waiting.items()))
                rest = end - time.monotonic()
                if rest <= 0:
                    del self._waiting[ticket]
                    return cancel
                self._changed.wait(rest)


@dataclass(frozen=True, slots=True)
class WaitingLine:
    """How calls wait at a door that is full.

    Attributes:
        total: limit of waiting calls.
        each: limit of waiting calls of one caller.
        seconds: limit of the wait.
    """

    total: Limit = limits.LINE
    each: Limit = limits.CALLER_LINE
    seconds: Limit = limits.TURN


@dataclass(eq=False, slots=True)
class _Waiting:
    """A call in the line.

    Attributes:
        caller: its caller.
        called: set once it may enter.
    """

    caller: Hashable
    called: threading.Event = field(default_factory=threading.Event)


class Door:
    """Admission of one kind of calls.

    Args:
        name: name of its threads.
        total: limit of concurrent calls.
        each: limit of concurrent calls of one caller.
        watchdog: cancels calls without a message.
        what: plural noun for error messages, such as "calls".
        line: where calls wait that find it full; `None` to refuse them at once.
    """

    def __init__(
        self,
        name: str,
        total: Limit,
        each: Limit,
        watchdog: Watchdog,
        what: str = "calls",
        line: WaitingLine | None = None,
    ) -> None:
        self._total, self._each, self._what = total.most, each.most, what
        self._watchdog = watchdog
        self._line = line
        room = 0 if line is None else line.total.most
        self._threads = ThreadPoolExecutor(total.most + room + _SPARE, name)
        self._lock = threading.Lock()
        self._inside: Counter[Hashable] = Counter()
        self._waiting: deque[_Waiting] = deque()

    def guard(self, handler: Handler, caller: Caller, *, watch: bool = False) -> Handler:
        """Return a gRPC handler that passes admission before the given one.

        Args:
            handler: answers the calls; a streaming handler waits for its messages itself.
            caller: identifies the caller by the call's context; may abort the call.
            watch: whether a streaming handler's calls are cancelled, too, if a message does not
                arrive in time.
        """
        behaviour = behaviour_of(handler)
        if not handler.request_streaming:
            behaviour = self._first(behaviour)
        elif watch:
            behaviour = self._each_in_time(behaviour)
        if handler.response_streaming:
            guarded: Behaviour = functools.partial(self._stream, behaviour, caller)
            make = grpc.stream_stream_rpc_method_handler
        else:
            guarded = functools.partial(self._answer, behaviour, caller)
            make = grpc.stream_unary_rpc_method_handler
        guarded.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def refuse(self, behaviour: Behaviour) -> Handler:
        """Return a handler that refuses calls at once, without waiting for a message.

        Args:
            behaviour: aborts the call.
        """
        refusal = functools.partial(behaviour)
        refusal.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return grpc.stream_unary_rpc_method_handler(refusal)

    def close(self) -> None:
        """Shut the threads down; call it after the server has stopped."""
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
        """Return a behaviour that reads the only message of a stream, within the time limit."""

        def taken(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._watchdog.watching(context):
                message = next(messages, None)
            if message is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected a message, but got none.")
            return behaviour(message, context)

        return taken

    def _each_in_time(self, behaviour: Behaviour) -> Behaviour:
        """Return a behaviour whose every message arrives within the time limit."""

        def watched(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            while True:
                with self._watchdog.watching(context):
                    message = next(messages, None)
                if message is None:
                    return
                yield message

        return lambda messages, context: behaviour(watched(messages, context), context)

    @contextmanager
    def _entered(self, caller: Hashable, context: grpc.ServicerContext) -> Iterator[None]:
        full = self._enter(caller)
        if full:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Expected at most {full} at a time. Try again later.",
            )
        try:
            yield
        finally:
            with self._lock:
                self._leave(caller)

    def _enter(self, caller: Hashable) -> str:
        """Let a call in, at once or when it is its turn; return what is full if it is not."""
        with self._lock:
            full = self._full(caller)
            if not full:
                self._inside[caller] += 1
                return ""
            if self._line is None or not self._has_room(self._line, caller):
                return full
            waiting = _Waiting(caller)
            self._waiting.append(waiting)
        if waiting.called.wait(self._line.seconds.most):
            return ""
        with self._lock:
            if waiting.called.is_set():  # let in just now
                return ""
            self._waiting.remove(waiting)
        return full

    def _full(self, caller: Hashable) -> str:
        if self._inside[caller] >= self._each:
            return f"{self._each} {self._what} of one caller"
        return f"{self._total} {self._what}" if self._inside.total() >= self._total else ""

    def _has_room(self, line: WaitingLine, caller: Hashable) -> bool:
        mine = sum(one.caller == caller for one in self._waiting)
        return mine < line.each.most and len(self._waiting) < line.total.most

    def _leave(self, caller: Hashable) -> None:
        """Give a place back, and let in whoever has waited longest and may enter."""
        self._inside[caller] -= 1
        if not self._inside[caller]:
            del self._inside[caller]
        for waiting in self._waiting:
            if not self._full(waiting.caller):
                self._waiting.remove(waiting)
                self._inside[waiting.caller] += 1
                waiting.called.set()
                return


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the one function, of four possible, that a handler has."""
    unary = handler.unary_unary or handler.unary_stream
    found = unary or handler.stream_unary or handler.stream_stream
    if found is None:
        raise TypeError("Expected a gRPC handler with a function, but got one without.")
    return found


def host_of(context: "grpc.ServicerContext | grpc.aio.ServicerContext[Any, Any]") -> str:
    """Return the address of a caller, without the port.

    For IPv6 it is the /64 network, since one host can use all addresses of its network.
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
    """Raise this process's limit of open files to the maximum, and return it.

    The default is often 1,024, and each connection takes one descriptor.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connection_options(
    part: int, most: int = limits.CONNECTIONS.most
) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options for a port.

    Args:
        part: the port's share of the process's descriptors, as 1/part; a full port leaves the rest
            to other ports.
        most: limit of connections.

    Example:
        >>> dict(connection_options(4))["grpc.server_handshake_timeout_ms"]
        5000
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY:
        most = min(most, descriptors // part)
    return (
        ("grpc.max_allowed_incoming_connections", most),
        ("grpc.max_concurrent_streams", limits.CONNECTION_CALLS.most),
        ("grpc.server_handshake_timeout_ms", 1000 * limits.HANDSHAKE.most),
        ("grpc.max_connection_idle_ms", 1000 * limits.IDLE.most),
        # Two coordinators on one port would each get half of the connections.
        ("grpc.so_reuseport", 0),
    )
