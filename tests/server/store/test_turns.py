"""The fair lock: the longest waiter is next, and a timed-out waiter is skipped."""

import threading

from disinherit.server.store.database import FairLock
from tests.support.agent import wait_for


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order = FairLock(), list[str]()
    threads: list[threading.Thread] = []

    def take(name: str) -> None:
        with turns.taken(30.0) as came:
            assert came
            order.append(name)

    with turns.taken(0.0) as came:
        assert came
        for number in range(8):
            thread = threading.Thread(target=take, args=(f"waiting {number}",))
            thread.start()
            threads.append(thread)
            wait_for(lambda: len(turns._waiting) == len(threads))
    take("back at once")  # although nobody of the others may have woken up
    for thread in threads:
        thread.join(30.0)
    assert order == [*(f"waiting {number}" for number in range(8)), "back at once"]


def test_who_waits_too_long_goes_without_and_holds_up_nobody() -> None:
    turns = FairLock()
    with turns.taken(0.0), turns.taken(0.01) as late:
        assert not late
    with turns.taken(0.0) as came:
        assert came


def test_one_at_a_time_whatever_happens() -> None:
    turns, count = FairLock(), 0
    late: list[int] = []
    failed: list[int] = []

    def work() -> None:
        nonlocal count
        for number in range(300):
            try:
                with turns.taken(0.0001 if number % 3 else 30.0) as came:
                    if not came:
                        late.append(number)
                        continue
                    seen = count
                    if number % 7 == 0:
                        raise ValueError(number)
                    count = seen + 1
            except ValueError:
                failed.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert count + len(late) + len(failed) == 8 * 300
    with turns.taken(0.0) as came:
        assert came


def test_as_many_as_there_are_places_hold_it() -> None:
    turns = FairLock(2)
    with turns.taken(0.0) as first, turns.taken(0.0) as second:
        assert first
        assert second
        with turns.taken(0.01) as third:
            assert not third
    with turns.taken(0.0) as first, turns.taken(0.0) as second:
        assert first
        assert second
