"""Class names that look alike: one text in two encodings, cases or number formats.

Classes correspond by their exact names.  A similar name is never matched automatically: it is
proposed to a person, who can confirm it with a label mapping.
"""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_DEFAULT = re.compile(r"(?:label|class)[ _-]?[0-9]+")


def comparable(name: str) -> str:
    r"""Return a form of a class name that is equal for names that look alike.

    Numbers are compared by value; other names after NFC, case folding and stripping.

    Example:
        >>> comparable("cafe\u0301") == comparable("Caf\u00e9")
        True
        >>> comparable("3") == comparable("3.0"), comparable("3") == comparable("30")
        (True, False)
    """
    text = unicodedata.normalize("NFC", name.strip())
    if _NUMBER.fullmatch(text):
        return f"{Decimal(text).normalize() + 0:f}"
    return unicodedata.normalize("NFC", text.casefold())


def look_alikes(name: str, others: Iterable[str]) -> list[str]:
    """Return the names among `others` that look like `name` but differ.

    Example:
        >>> look_alikes("Cat", ["dog", "cat", "Cat"])
        ['cat']
    """
    wanted = comparable(name)
    return [other for other in others if other != name and comparable(other) == wanted]


def default_names(labels: Iterable[str]) -> list[str]:
    """Return the default names that a tool gave to unnamed classes, such as `LABEL_0`.

    Example:
        >>> default_names(["LABEL_0", "label 1", "cat"])
        ['LABEL_0', 'label 1']
    """
    return [name for name in labels if _DEFAULT.fullmatch(name.strip().casefold())]


def quote_distinctly(name: str, other: str) -> tuple[str, str]:
    r"""Return two names quoted so that their difference is visible.

    Example:
        >>> quote_distinctly("Cat", "cat")
        ("'Cat'", "'cat'")
        >>> quote_distinctly("caf\u00e9", "cafe\u0301")
        ("'caf\\xe9'", "'cafe\\u0301'")
    """
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return (ascii(name), ascii(other)) if same else (repr(name), repr(other))
