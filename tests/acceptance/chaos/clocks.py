"""A clock of this process that is set to and fro, as a machine's is by mistake."""

import time
from collections.abc import Callable
from random import Random
from typing import Self

HOUR = 3600 * 10**9
DAY = 24 * HOUR
YEAR = 365 * DAY
JUMPS = (YEAR, 40 * DAY, 2 * HOUR, 0, -HOUR, -YEAR)
"""Where it may be set to, in nanoseconds from the time that is right."""


class SetClock:
    """The clock within a block, whose seconds are as long as ever.

    Attributes:
        offset: nanoseconds that it is ahead.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._right: Callable[[], int] = time.time_ns

    def __enter__(self) -> Self:
        self._right = time.time_ns
        time.time_ns = self._now
        return self

    def __exit__(self, *_: object) -> None:
        time.time_ns = self._right

    def jump(self, random: Random) -> None:
        """Set it to another time than it shows."""
        self.offset = random.choice([jump for jump in JUMPS if jump != self.offset])

    def _now(self) -> int:
        return self._right() + self.offset
