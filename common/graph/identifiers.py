"""Identifiers of versions, requests and owners, safe as file names."""

import hashlib
import re

from disinherit.common import limits
from disinherit.common.errors import GraphError, InputError

_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")
_LENGTH = 128
"""Most characters of a model id."""
_DIGITS = 32
"""Characters of the digest at the end of a cut id."""


def check_id(value: str, what: str = "model id", error: type[InputError] = GraphError) -> str:
    """Return `value` if it is a well-formed identifier, safe as a file name.

    Args:
        value: the identifier.
        what: what it identifies.
        error: class of the error.

    Raises:
        InputError: as `error`, if the value is malformed.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise error(
            f"Expected a well-formed {what}, 1 to 128 letters, digits and . _ ~ - that start with "
            f"a letter or digit, but got {limits.shown(value)}."
        )
    return value


def check_owner(value: str, error: type[InputError] = InputError) -> str:
    """Return `value` if it is a valid name of an owner.

    Names are file names on some machines.  There, names that differ only in case or in a final dot
    would be the same, and names of devices are reserved.

    Args:
        value: the name.
        error: class of the error.

    Raises:
        InputError: as `error`, if the name is not valid.

    Example:
        >>> check_owner("clinic-7.north")
        'clinic-7.north'
    """
    check_id(value, "owner name", error)
    if value != value.lower() or value.endswith(".") or value.partition(".")[0] in _DEVICES:
        raise error(
            "Expected an owner name in lower-case letters that does not end with a dot and is no "
            f"name of a device such as con, but got {limits.shown(value)}."
        )
    return value


def successor_id(model_id: str, request_id: str) -> str:
    """Return the id of the successor that a request makes of a model.

    It joins both ids.  If that is too long for an id, as after many requests, it is cut and ends
    with a digest of the whole.

    Example:
        >>> successor_id("r6", "forget-cats")
        'r6~forget-cats'
        >>> len(successor_id("m" * 128, "forget-cats"))
        128
    """
    full = f"{model_id}~{request_id}"
    if len(full) <= _LENGTH:
        return full
    digest = hashlib.sha256(full.encode()).hexdigest()[:_DIGITS]
    return f"{full[: _LENGTH - _DIGITS - 1]}~{digest}"


def line_name(model_id: str) -> str:
    """Return what the ids of a model and of all its successors begin with.

    Whoever holds no version of the model tells by it which ones belong together.

    Example:
        >>> line_name("r6~forget-cats~forget-dogs"), line_name("r6")
        ('r6', 'r6')
    """
    return model_id.partition("~")[0][: _LENGTH - _DIGITS - 1]
