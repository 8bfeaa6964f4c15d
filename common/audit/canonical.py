"""Canonical JSON (RFC 8785), as it is hashed and signed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import rfc8785

from disinherit.common.errors import AuditError

Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]
"""Values of parameters; whole numbers are below 2**53 in size, which every JSON reader keeps."""

_LARGEST = 2**53
_DEEPEST = 8
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
"""Writes what `rfc8785` does, many times as fast, where all names are ASCII.

It sorts others by code point, and not by UTF-16 as the standard demands.
"""


def canonical(value: Json) -> bytes:
    r"""Return a value as canonical JSON.

    Raises:
        AuditError: if the value has no canonical form.

    Example:
        >>> canonical({"b": [True, "é"], "a": 1})
        b'{"a":1,"b":[true,"\xc3\xa9"]}'
    """
    names: set[str] = set()
    plain = _plain(value, _DEEPEST, names)
    try:
        if "".join(names).isascii():
            return _ENCODER.encode(plain).encode()
        return rfc8785.dumps(plain)
    except (UnicodeEncodeError, rfc8785.CanonicalizationError) as error:
        raise AuditError(f"Expected text that is Unicode in an audit entry, but {error}.") from None


def names_digest(names: Sequence[str]) -> str | None:
    """Return the SHA-256 of names as canonical JSON; `None` without names."""
    return hashlib.sha256(canonical(list(names))).hexdigest() if names else None


def _plain(value: Json, depth: int, names: set[str]) -> Any:
    """Return a value with the types of `json` only, and add to all names in it."""
    if depth == 0:
        raise AuditError(f"Expected an audit entry nested less than {_DEEPEST} levels deep.")
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) < _LARGEST:
        return value
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        names.update(value)
        # Most values are text: that saves a call for each.
        return {
            name: one if type(one) is str and depth > 1 else _plain(one, depth - 1, names)
            for name, one in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [
            one if type(one) is str and depth > 1 else _plain(one, depth - 1, names)
            for one in value
        ]
    raise AuditError(
        "Expected text, whole numbers below 2**53, true, false, null, lists and objects in an "
        f"audit entry, but got {value!r}."
    )
