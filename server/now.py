"""The time of the coordinator."""

import time


def now_us() -> int:
    """Return the coordinator's time in microseconds since the epoch."""
    return time.time_ns() // 1000
