"""Numbers, lists and times as people read them; `n/a` could not be computed, and is no zero."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Format a number; `n/a` if there is none.

    Example:
        >>> number(12.34, 1, " %"), number(-0.01), number(None)
        ('12.3 %', '0.0', 'n/a')
    """
    if value is None:
        return "n/a"
    return f"{round(value, digits) + 0.0:.{digits}f}{unit}"


def signed(value: float | None) -> str:
    """Format percentage points with their sign.

    Example:
        >>> signed(0.25), signed(-0.01)
        ('+0.2', '0.0')
    """
    shown = number(value)
    return f"+{shown}" if value is not None and float(shown) > 0 else shown


def plain(value: float | None) -> str:
    """Format a setting with the digits it needs, four at most.

    Example:
        >>> plain(1.0), plain(0.12345), plain(None)
        ('1', '0.1235', 'n/a')
    """
    return "n/a" if value is None else f"{value:.4g}"


def typographic(words: str) -> str:
    """Return words with a minus sign in place of the hyphen before each number.

    Example:
        >>> typographic("-3.0"), typographic("n/a"), typographic("a-1 (-2.0 ± 1.0)")
        ('−3.0', 'n/a', 'a-1 (−2.0 ± 1.0)')
    """
    return re.sub(r"(?<![^\s(])-(?=[\d.])", "\N{MINUS SIGN}", words)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "model"), count(3, "model"), count(2, "copy", "copies")
        ('1 model', '3 models', '2 copies')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def joined(names: Sequence[str]) -> str:
    """Join names as prose, cut after six: a fleet may have hundreds.

    Example:
        >>> joined(["a", "b", "c"]), joined(list("abcdefgh"))
        ('a, b and c', 'a, b, c, d, e and 3 more')
    """
    if len(names) > 6:
        return ", ".join(names[:5]) + f" and {len(names) - 5} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def as_time(microseconds: int) -> str | None:
    """Return a time as ISO 8601 in UTC; `None` for 0.

    Example:
        >>> as_time(1_000_000)
        '1970-01-01T00:00:01+00:00'
    """
    if not microseconds:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")


def day(when: str | None) -> str:
    """Return the day of a time in ISO 8601; `""` for none.

    Example:
        >>> day("2026-11-29T05:39:59+00:00"), day(None)
        ('2026-11-29', '')
    """
    return (when or "")[:10]


def minute(when: str | None) -> str:
    """Return a time in ISO 8601 to the minute; `""` for none.

    Example:
        >>> minute("2026-11-29T05:39:59+00:00")
        '2026-11-29 05:39'
    """
    return (when or "")[:16].replace("T", " ")


def size(number: float) -> str:
    """Return a number of bytes in a unit that fits.

    Example:
        >>> size(2_500_000), size(100), size(3e9)
        ('2.5 MB', '0.1 kB', '3.0 GB')
    """
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if number >= one[0]), (1e3, "kB"))
    return f"{number / unit:.1f} {name}"


def bandwidth(downloaded: int, microseconds: int, limit: int) -> str:
    """Return how fast an owner's agent downloads, and its own limit; `""` if neither is known.

    Args:
        downloaded: bytes of its latest long download.
        microseconds: how long this took.
        limit: bytes in each second that it allows; 0 for no limit.

    Example:
        >>> bandwidth(5_000_000, 2_000_000, 0), bandwidth(0, 0, 200_000)
        ('2.5 MB/s', 'limit 200.0 kB/s')
    """
    found = f"{size(downloaded / microseconds * 1e6)}/s" if microseconds else ""
    return ", ".join(filter(None, [found, f"limit {size(limit)}/s" if limit else ""]))
