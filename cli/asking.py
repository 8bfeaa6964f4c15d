"""Values of a request as people type them."""

import re
from collections.abc import Sequence

from disinherit.common.errors import InputError, RequestError

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def classes_by_model(tokens: Sequence[str]) -> dict[str, list[str]]:
    """Return model -> classes, of `CLASS@MODEL` each.

    Raises:
        RequestError: if a class or a model is missing.

    Example:
        >>> classes_by_model(["cat@r1", "dog@r1"])
        {'r1': ['cat', 'dog']}
    """
    named: dict[str, list[str]] = {}
    for token in tokens:
        name, _, model = token.rpartition("@")
        if not name or not model:
            raise RequestError(
                f"Expected a class and a model as CLASS@MODEL, such as cat@r1, but got {token!r}."
            )
        named.setdefault(model, []).append(name)
    return named


def seconds(duration: str) -> int:
    """Return a duration in seconds.

    Raises:
        InputError: if it is none.

    Example:
        >>> seconds("12h")
        43200
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise InputError(f"Expected a duration such as 90s, 45m, 12h or 30d, but got {duration!r}.")
    return int(match[1]) * _SECONDS[match[2]]
