"""Waits: bounded, random, and over when the agent is stopped."""

import threading
import time

import pytest

from disinherit.client.agent.pacing import LONGEST_WAIT, Throttle, backoff


class Clock(threading.Event):
    """An event that records waits without waiting, and the matching clock."""

    now = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += timeout
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def test_a_transfer_keeps_its_rate(clock: Clock) -> None:
    throttle = Throttle(1000, clock)
    for _ in range(20):
        throttle.spend(500)
    assert clock.now == pytest.approx(110.0)


def test_idle_time_does_not_raise_the_rate(clock: Clock) -> None:
    throttle = Throttle(1000, clock)
    clock.now += 3600.0
    began = clock.now
    throttle.spend(1000)
    throttle.spend(1000)
    assert clock.now - began == pytest.approx(2.0)


def test_without_a_limit_there_is_no_wait(clock: Clock) -> None:
    Throttle(0, clock).spend(10**12)
    assert clock.now == 100.0


def test_waits_grow_to_a_bound_and_are_random() -> None:
    first = [backoff(0) for _ in range(200)]
    late = [backoff(50) for _ in range(200)]
    assert max(first) <= 0.5
    assert LONGEST_WAIT / 2 < max(late) <= LONGEST_WAIT
    assert min(late) < LONGEST_WAIT / 4
