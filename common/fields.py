"""Fields of immutable values: frozen, and checked against their declared types, when one is made.

Annotations are the one declaration of what a field takes; `disinherit.common.settings.check` reads
them.  Ranges and names are checked by the classes themselves, which may then rely on the types.
"""

import abc
import enum
import functools
import numbers
import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from disinherit.common.errors import InputError
from disinherit.common.limits import shown
from disinherit.common.settings import check

_PLAIN = frozenset({str, int, float, bool, type(None)})


def settle(value: Any, what: str, error: type[InputError]) -> None:
    """Freeze the collections in a dataclass, and check every field against its declared type.

    Sequences become tuples, mappings read-only copies, and numbers of other libraries, such as
    NumPy, plain ones.  A text is no sequence of texts here, and a set, which has no order, is no
    sequence.

    Args:
        value: the dataclass, in its `__post_init__`.
        what: the value in errors, such as "a method".
        error: class of the error.

    Raises:
        InputError: as `error`, if a field has another type.
    """
    declared = _declared(value.__class__)
    given = {}
    for name in declared.__struct_fields__:
        found = getattr(value, name)
        if type(found) not in _PLAIN:
            found = _frozen(found, f"{name} in {what}", error)
            object.__setattr__(value, name, found)
            found = _listed(found)
        given[name] = found
    try:
        check(declared, given, what)
    except InputError as refused:
        raise error(str(refused)) from None


def check_type(value: object, kind: type, what: str, error: type[InputError]) -> None:
    """Check that an argument is of a class, where no other would do.

    Args:
        value: the argument.
        kind: the class.
        what: what was expected, such as "a wave such as 10%".
        error: class of the error.

    Raises:
        InputError: as `error`, if it is not.
    """
    if not isinstance(value, kind):
        raise error(f"Expected {what}, but got {shown(value)}.")


def is_iterable(value: object) -> bool:
    """Whether a value has items; arrays and tensors without dimensions have the method only."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def _frozen(value: Any, place: str, error: type[InputError]) -> Any:
    if type(value) in _PLAIN or isinstance(value, (str, bytes, enum.Enum)):
        return value
    if isinstance(value, tuple) and _PLAIN.issuperset(map(type, value)):
        return tuple(value)
    if isinstance(value, Mapping):
        frozen = dict(value)
        if not _PLAIN.issuperset(map(type, frozen.values())):
            frozen = {key: _frozen(one, place, error) for key, one in frozen.items()}
        return MappingProxyType(frozen)
    if isinstance(value, (set, frozenset)):
        raise error(f"Expected a list as {place}, but got a set, which has no order. Sort it.")
    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    try:
        items = iter(value)
    except TypeError:  # also of a tensor without dimensions, which has the method
        return value
    return tuple(one if type(one) in _PLAIN else _frozen(one, place, error) for one in items)


def _listed(value: Any) -> Any:
    """Return a frozen value as TOML or JSON would give it."""
    if isinstance(value, MappingProxyType):
        return dict(zip(value, _all_listed(value.values()), strict=True))
    if isinstance(value, tuple):
        return _all_listed(value)
    return value if isinstance(value, (str, bytes)) or not _is_indexed(value) else _Other(value)


def _is_indexed(value: Any) -> bool:
    return hasattr(type(value), "__getitem__")


class _Other:
    """A value that msgspec would take for a mapping, since it can be indexed, as errors show it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def _all_listed(values: Collection[Any]) -> list[Any]:
    plain = _PLAIN.issuperset(map(type, values))
    return list(values) if plain else list(map(_listed, values))


@functools.cache
def _declared(kind: type) -> type[msgspec.Struct]:
    """Return the fields of a dataclass as a table, without what is checked when one is made."""
    hints = get_type_hints(kind, include_extras=True)
    return msgspec.defstruct(
        kind.__name__, [(field.name, _known(hints[field.name])) for field in fields(kind)]
    )


def _known(hint: Any) -> Any:
    """Return a type with a stand-in for every class of which only instances are taken.

    msgspec would take tables for dataclasses and texts for enums.
    """
    origin = get_origin(hint)
    if origin is None:
        own = is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, enum.Enum))
        return _stand_in(hint) if own else hint
    if origin is Literal:
        return hint
    if origin is Annotated:
        inner, *about = get_args(hint)
        return Annotated[(_known(inner), *about)]
    inside = tuple(map(_known, get_args(hint)))
    return functools.reduce(operator.or_, inside) if origin is UnionType else origin[inside]


def _stand_in(kind: type) -> type:
    made = abc.ABCMeta(kind.__name__, (), {})
    made.register(kind)
    return made
