"""Safe text from outside: JSON and TOML with bounded nesting, and printable and short lines.

The standard parsers, and all code that walks their values, fail in various ways at values nested
thousands of times.  A few kilobytes suffice for that.
"""

import json
import tomllib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from disinherit.common.errors import InputError
from disinherit.common.limits import NESTING, REASON


def load_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if the text is no JSON, or its values are nested too deeply.

    Example:
        >>> load_json('{"a": [1]}')
        {'a': [1]}
    """
    return _loaded(json.loads, text)


def load_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text.

    Raises:
        ValueError: if the text is no TOML, or its values are nested too deeply.
    """
    table: dict[str, Any] = _loaded(tomllib.loads, text)
    return table


def _loaded(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    try:
        value = parse(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(NESTING.most):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, (dict, list))]
    if isinstance(value, list):
        return [inner for inner in value if isinstance(inner, (dict, list))]
    return []


_TOO_DEEP = f"its values are nested in each other more than {NESTING.most} times"


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return the end of an error about a name that is not known: what may have been meant.

    Args:
        typed: the name.
        known: all names.

    Example:
        >>> did_you_mean("federatd", ["federated", "transfer"])
        " Did you mean 'federated'?"
        >>> did_you_mean("moon", ["federated", "transfer"])
        ''
    """
    found = get_close_matches(typed, list(known), 1)
    return f" Did you mean {found[0]!r}?" if found else ""


def one_line(text: str, most: int = REASON.most) -> str:
    r"""Return a text as one printable line of bounded length.

    Characters that move the cursor, hide or reverse text become blanks, and so do line breaks.
    They are control characters, C1, bidirectional marks, zero widths and lone surrogates.

    Args:
        text: the text.
        most: most characters.

    Example:
        >>> one_line("no\n  room\x1b[2J")
        'no room [2J'
    """
    if len(text) <= most and text.isprintable() and text.strip() == text and "  " not in text:
        return text
    beginning = text[: 2 * most]  # bounds the work
    return " ".join(_printable(beginning).split())[:most]


def elide(text: str, length: int) -> str:
    """Shorten a text in the middle: ids of versions differ at both ends.

    Args:
        text: the text.
        length: most characters, at least 2.

    Example:
        >>> elide("resnet-hospital-a~2", 11)
        'resne…l-a~2'
    """
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"


def check_utf8(text: str, what: str, error: type[InputError] = InputError) -> None:
    """Check that UTF-8, and so a message, can hold a text; the error does not repeat the text.

    Raises:
        InputError: as `error`, if it has half a character (a lone surrogate).
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise error(f"Expected {what} as text that UTF-8 can hold, but got half a character in it.")


def printable(text: str) -> str:
    r"""Return a text with blanks in place of characters that are not printable.

    Example:
        >>> printable("a\x1b[2J  b")
        'a [2J  b'
    """
    return text if text.isprintable() else _printable(text)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
