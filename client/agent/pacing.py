"""Rates and waits of an agent, by monotonic clocks."""

import random
import threading
import time

FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0


def backoff(failures: int) -> float:
    """Return seconds to wait after a number of consecutive failures.

    The wait is random up to a bound that doubles (full jitter).  So the agents of a fleet that lost
    its coordinator do not all reconnect at once.

    Args:
        failures: number of failures, at least 0.

    Example:
        >>> 0 <= backoff(0) <= FIRST_WAIT, 0 <= backoff(1000) <= LONGEST_WAIT
        (True, True)
    """
    bound = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 32))
    return random.uniform(0.0, bound)


class Throttle:
    """Limits a transfer to an average number of bytes per second.

    Args:
        bytes_per_second: the limit; 0 for none.
        stop: ends all waits when it is set.
    """

    def __init__(self, bytes_per_second: int, stop: threading.Event) -> None:
        self._rate = bytes_per_second
        self._stop = stop
        self._free = time.monotonic()

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes may have been transferred."""
        if self._rate:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self._rate
            self._stop.wait(self._free - now)
