"""Durations as people write them: 90s, 45m, 12h, 30d."""

import re

from disinherit.common.errors import InputError

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds(duration: str) -> int:
    """Return a duration in seconds.

    Raises:
        InputError: if it is not a duration.

    Example:
        >>> seconds("12h")
        43200
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise InputError(f"Expected a duration such as 90s, 45m, 12h or 30d, but got {duration!r}.")
    return int(match[1]) * _SECONDS[match[2]]


def duration(length: int) -> str:
    """Return a number of seconds as a duration, in the largest unit without a rest.

    Example:
        >>> duration(43200), duration(90)
        ('12h', '90s')
    """
    unit = next(unit for unit, size in _SECONDS.items() if length % size == 0)
    return f"{length // _SECONDS[unit]}{unit}"
