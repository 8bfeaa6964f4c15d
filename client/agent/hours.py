"""Hours of participation of an agent, by the coordinator's clock: the device's may be wrong."""

import datetime
import re
import time
from dataclasses import dataclass

from disinherit.common.errors import InputError

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Hours:
    """A daily window.

    Attributes:
        start: opening time, in seconds after midnight.
        end: closing time, in seconds after midnight; before `start` for a window over midnight.
    """

    start: float
    end: float

    def __str__(self) -> str:
        """Return the window as in a configuration, such as `22:00-06:00`."""
        minutes = (divmod(round(time / 60), 60) for time in (self.start, self.end))
        return "-".join(f"{hour:02}:{minute:02}" for hour, minute in minutes)

    def until_open(self, second: float) -> float:
        """Return the seconds until the window opens; 0 within it.

        Args:
            second: time in seconds after midnight.
        """
        wait = (self.start - second) % _DAY
        return 0.0 if self.until_closed(second) <= (self.end - self.start) % _DAY else wait

    def until_closed(self, second: float) -> float:
        """Return the seconds until the window closes.

        Args:
            second: time in seconds after midnight.
        """
        return (self.end - second) % _DAY or _DAY


def parse_hours(text: str) -> Hours:
    """Read a window such as `22:00-06:00`.

    Raises:
        InputError: if the text is no window, or an empty one.

    Example:
        >>> hours = parse_hours("22:00-06:00")
        >>> hours.until_open(23 * 3600), hours.until_open(21 * 3600)
        (0.0, 3600.0)
    """
    found = _HOURS.fullmatch(text)
    if found is None:
        raise InputError(f"Expected hours such as 22:00-06:00, but got {text!r}.")
    numbers = [int(number) for number in found.groups()]
    hours = Hours(*(60.0 * (60 * h + m) for h, m in (numbers[:2], numbers[2:])))
    if hours.start == hours.end:
        raise InputError(
            f"Expected hours with different start and end, but got {text!r}. Leave "
            "them out to take part always."
        )
    return hours


class CoordinatorClock:
    """The coordinator's time: its last message, continued by a monotonic clock."""

    def __init__(self) -> None:
        self._told_us: int | None = None
        self._at = 0.0

    def set(self, time_us: int) -> None:
        """Set the coordinator's time, in microseconds since the epoch."""
        self._told_us, self._at = time_us, time.monotonic()

    def second_of_day(self) -> float | None:
        """Return the seconds since midnight in the device's time zone; `None` before `set`."""
        if self._told_us is None:
            return None
        now = self._told_us / 1e6 + time.monotonic() - self._at
        local = datetime.datetime.fromtimestamp(now)
        return local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
