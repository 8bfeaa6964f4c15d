"""JSON and TOML from outside: what is nested too deeply is no more than wrong input.

The parsers of the standard library, and all that walks through what they return, fail in ways of
their own where values are nested thousands of times, which takes a few kilobytes.
"""

import json
import tomllib
from collections.abc import Callable
from typing import Any

from disinherit.common.limits import NESTING, REASON


def load_json(text: str | bytes) -> Any:
    """Return the value that a JSON text stands for.

    Raises:
        ValueError: if it is no JSON, or its values are nested too deeply.

    Example:
        >>> load_json('{"a": [1]}')
        {'a': [1]}
    """
    return _loaded(json.loads, text)


def load_toml(text: str) -> dict[str, Any]:
    """Return the table that a TOML text stands for.

    Raises:
        ValueError: if it is no TOML, or its values are nested too deeply.
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
