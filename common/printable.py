"""Text that came from elsewhere, as one line that no terminal, log or table takes for more."""

from disinherit.common.limits import REASON


def one_line(text: str, most: int = REASON.most) -> str:
    r"""Return a text as one printable line of bounded length.

    What moves a cursor, hides or reverses text (control characters, C1, bidirectional marks, zero
    widths, lone surrogates) becomes a blank, and so do line breaks.

    Args:
        text: the text.
        most: characters at most.

    Example:
        >>> one_line("no\n  room\x1b[2J")
        'no room [2J'
    """
    beginning = text[: 2 * most]  # before every character is looked at
    return " ".join(_printable(beginning).split())[:most]


def printable(text: str) -> str:
    r"""Return a text with a blank in the place of every character that is not printable.

    Example:
        >>> printable("a\x1b[2J  b")
        'a [2J  b'
    """
    return text if text.isprintable() else _printable(text)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
