"""Canonical JSON (RFC 8785), as it is hashed and signed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import rfc8785

from disinherit.common.errors import AuditError

Json = str | int | bool | None | Sequence["Json"] | Mapping[str, "Json"]
"""Values of parameters; whole numbers are below 2**53 in size, which every JSON reader keeps."""

_LARGEST = 2**53
_DEEPEST = 8
_TEXT = frozenset({str})
_LEAVES = frozenset({str, bool, type(None)})
_NESTING = frozenset({dict, list, tuple})
_ENCODER = msgspec.json.Encoder(order="sorted")
"""Writes what `rfc8785` does, many times as fast, where all names are ASCII.

It sorts other names by code point, and not by UTF-16 as the standard demands.
"""


def canonical(value: Json) -> bytes:
    r"""Return a value as canonical JSON.

    Raises:
        AuditError: if the value has no canonical form.

    Example:
        >>> canonical({"b": [True, "é"], "a": 1})
        b'{"a":1,"b":[true,"\xc3\xa9"]}'
    """
    plain = _plain(value, _DEEPEST)
    try:
        data = _ENCODER.encode(plain)
        sorted_alike = data.isascii() or all(name.isascii() for name in _names(plain))
        return data if sorted_alike else rfc8785.dumps(plain)
    except (UnicodeEncodeError, rfc8785.CanonicalizationError) as error:
        raise AuditError(f"Expected text that is Unicode in an audit entry, but {error}.") from None


def names_digest(names: Sequence[str]) -> str | None:
    """Return the SHA-256 of names as canonical JSON; `None` without names."""
    return hashlib.sha256(canonical(list(names))).hexdigest() if names else None


def _plain(value: Any, depth: int) -> Any:
    """Return a value with the types of `json` only, and not those derived from them."""
    kind = type(value)
    if kind in _LEAVES or (kind is int and -_LARGEST < value < _LARGEST):
        return value
    if kind not in _NESTING or (kind is dict and not _TEXT.issuperset(map(type, value))):
        return _plain(_exact(value), depth)
    if depth <= bool(value):
        raise AuditError(f"Expected an audit entry nested less than {_DEEPEST} levels deep.")
    # Most values are text, and stay as they are: that saves a call for each.
    if kind is dict:
        plain = value.copy()
        for name, one in value.items():
            if type(one) not in _LEAVES:
                plain[name] = _plain(one, depth - 1)
        return plain
    return [one if type(one) in _LEAVES else _plain(one, depth - 1) for one in value]


def _exact(value: Json) -> Json:
    """Return a value of a type derived from one of `json`, or like one, with that type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and abs(value) < _LARGEST:
        return int(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {str.__str__(name): one for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    raise AuditError(
        "Expected text, whole numbers below 2**53, true, false, null, lists and objects in an "
        f"audit entry, but got {value!r}."
    )


def _names(plain: Any) -> Iterator[str]:
    """Yield the names in a value, of all objects in it."""
    if isinstance(plain, dict):
        yield from plain
        plain = list(plain.values())
    for one in plain if isinstance(plain, list) else ():
        yield from _names(one)
