"""Doors: calls beyond a limit wait in a line, in order and for a moment, and then are refused."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
import pytest

from disinherit.common.limits import Limit
from disinherit.server.ports.doors import Door, Handler, WaitingLine, Watchdog
from tests.support.agent import wait_for

INSIDE, EACH, ROOM, MINE = 3, 2, 3, 2


class RefusedError(Exception):
    """A call was refused."""


class Context:
    """What a door uses of a call."""

    def __init__(self, who: Hashable) -> None:
        self.who = who

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        raise RefusedError(details)

    def cancel(self) -> None:
        raise AssertionError


def limit(most: int) -> Limit:
    return Limit("some", most, "calls", "some")


class Room:
    """A door, and calls that stay inside until they are told to leave.

    Args:
        seconds: how long a call waits for its turn.
    """

    def __init__(self, seconds: int) -> None:
        line = WaitingLine(limit(ROOM), limit(MINE), limit(seconds))
        self.door = Door("some", limit(INSIDE), limit(EACH), Watchdog(30.0), line=line)
        self.entered: list[str] = []
        self.leave: dict[str, threading.Event] = {}
        self.threads: list[threading.Thread] = []
        handler: Handler = grpc.unary_unary_rpc_method_handler(self._stay)
        guarded = self.door.guard(handler, lambda context: cast("Context", context).who)
        self._answer: Any = guarded.stream_unary

    def _stay(self, message: str, context: Any) -> str:
        self.entered.append(message)
        self.leave[message].wait(30.0)
        return message

    def call(self, who: str, name: str) -> str:
        return str(self._answer(iter([name]), Context(who)))

    def calls(self, who: str, name: str) -> None:
        """Call in a thread of its own, and wait until the call has entered or waits."""
        before = self._here()
        self.leave[name] = threading.Event()
        thread = threading.Thread(target=self.call, args=(who, name))
        thread.start()
        self.threads.append(thread)
        wait_for(lambda: self._here() > before)

    def _here(self) -> int:
        return len(self.entered) + len(self.door._waiting)


@contextmanager
def room(seconds: int = 30) -> Iterator[Room]:
    made = Room(seconds)
    try:
        yield made
    finally:
        for leaving in made.leave.values():
            leaving.set()
        for thread in made.threads:
            thread.join(30.0)
        made.door.close()


def test_a_call_beyond_a_limit_waits_for_its_turn_and_is_answered() -> None:
    with room() as some:
        for who, name in (("anna", "a1"), ("anna", "a2"), ("ben", "b1")):
            some.calls(who, name)
        some.calls("anna", "a3")
        some.calls("carl", "c1")
        assert some.entered == ["a1", "a2", "b1"]
        some.leave["b1"].set()  # anna has her share inside already
        wait_for(lambda: some.entered[3:] == ["c1"])
        some.leave["a2"].set()
        wait_for(lambda: some.entered[4:] == ["a3"])


def test_a_full_line_refuses_at_once_and_no_caller_can_fill_it_alone() -> None:
    with room() as some:
        for name in ("a1", "a2", "a3", "a4"):
            some.calls("anna", name)
        with pytest.raises(
            RefusedError, match="at most 2 calls of one caller at a time. Try again"
        ):
            some.call("anna", "a5")
        some.calls("ben", "b1")
        some.calls("ben", "b2")  # the last that may wait
        with pytest.raises(RefusedError, match="at most 3 calls at a time. Try again later"):
            some.call("carl", "c1")
        assert some.entered == ["a1", "a2", "b1"]


def test_a_call_whose_turn_does_not_come_is_refused_and_leaves_the_line() -> None:
    with room(seconds=0) as some:
        some.calls("anna", "a1")
        some.calls("anna", "a2")
        with pytest.raises(RefusedError, match="of one caller"):
            some.call("anna", "a3")
        some.leave["a1"].set()
        some.threads[0].join(30.0)
        some.calls("anna", "a4")
        assert some.entered == ["a1", "a2", "a4"]


class LateCall:
    """A call that somebody waits for until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def watched(seconds: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Watchdog, list[int]]:
    """A watchdog, and a list with an item for each time that it was woken."""
    dog, woken = Watchdog(seconds), list[int]()
    notify = dog._changed.notify

    def count(number: int = 1) -> None:
        woken.append(number)
        notify(number)

    monkeypatch.setattr(dog._changed, "notify", count)
    return dog, woken


def test_calls_that_come_in_time_wake_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be woken for each call, it would have to take its turn at the interpreter each time."""
    dog, woken = watched(300.0, monkeypatch)
    for _ in range(100):
        with dog.watching(cast("grpc.ServicerContext", LateCall())):
            pass
    assert not woken


def test_a_late_call_is_cancelled_also_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    dog, woken = watched(0.1, monkeypatch)
    for _ in range(2):
        call = LateCall()
        with dog.watching(cast("grpc.ServicerContext", call)):
            assert call.cancelled.wait(30.0)
        wait_for(lambda: dog._asleep)
    assert len(woken) == 1
