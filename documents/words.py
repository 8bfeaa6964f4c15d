"""Numbers as people read them; `n/a` is a number that could not be computed, never zero."""


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
