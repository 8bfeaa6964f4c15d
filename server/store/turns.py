"""Turns of threads, in the order in which they asked."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairLock:
    """Lets one thread go on at a time, and next the one that has waited longest.

    A `threading.Lock` does not: a thread that gives it back and wants it again at once, as one that
    drives campaigns does with every state it stores, has it before those that wait have woken up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def taken(self, seconds: float) -> Iterator[bool]:
        """Have the turn during the block.

        Args:
            seconds: how long to wait for it.

        Yields:
            Whether it came in time.
        """
        came = self._take(seconds)
        try:
            yield came
        finally:
            if came:
                self._give()

    def _take(self, seconds: float) -> bool:
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Event()
            self._waiting.append(called)
        if called.wait(seconds):
            return True
        with self._lock:
            if called.is_set():  # just now
                return True
            self._waiting.remove(called)
            return False

    def _give(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken: nobody comes in between
            else:
                self._taken = False
