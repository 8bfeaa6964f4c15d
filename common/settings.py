r"""A reader of settings: TOML checked against declared tables, with one line for any error.

::

    class Limits(Table):
        rate: Annotated[int, Meta(ge=0)] = 0
        server: Annotated[str, Meta(pattern=r"^\S+:\d+\Z", description="host:port")]

    read(Limits, path, "a file of limits")

Values are not converted: `1` is not `true`, and `true` is no number.  Undeclared keys are refused.
An error names the `description` as what was expected.  A `Secret` never appears in an error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, inspect

from disinherit.common.errors import InputError
from disinherit.common.limits import LOG_LINE
from disinherit.common.text import load_toml, one_line

T = TypeVar("T")

Filled = Annotated[str, Meta(min_length=1)]
Secret = Annotated[str, Meta(extra={"secret": True})]

_OWN = (datetime,)
"""Types with native TOML values; text is not converted to them."""

_PLACE = re.compile(r" - at (`key` in )?`\$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`?$", re.DOTALL)
_SIMPLE: Mapping[type, str] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.DictType: "a table",
    inspect.StructType: "a table",
    inspect.DataclassType: "a table",
    inspect.TypedDictType: "an object",
    inspect.DateTimeType: "a time with its zone (2027-01-01T00:00:00Z)",
}
_BOUNDS = (("ge", "of at least"), ("gt", "above"), ("le", "of at most"), ("lt", "below"))


class Table(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A table that declares all its keys."""


def read(kind: type[T], path: Path, what: str) -> T:
    """Return the settings in a file.

    Args:
        kind: expected type of the table.
        path: the file.
        what: description of the file for errors, such as "a token file".

    Raises:
        InputError: if the file cannot be read or is no TOML, or a key or value is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"Expected {what} {str(path)!r}, but: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"Expected UTF-8 in {str(path)!r}, but: {error.reason}.") from None
    return parse(kind, text, repr(str(path)))


def parse(kind: type[T], text: str, where: str) -> T:
    """Return the settings in a TOML text.

    Args:
        kind: expected type of the table.
        text: the text.
        where: origin of the text, for errors.

    Raises:
        InputError: if the text is no TOML, or a key or value is wrong.
    """
    try:
        values = load_toml(text)
    except ValueError as error:
        raise InputError(f"Expected TOML in {where}, but: {error}.") from None
    return check(kind, values, where)


def check(kind: type[T], values: object, where: str) -> T:
    """Return values converted to a declared type.

    Args:
        kind: a `Table`, a dataclass, or another type that msgspec knows.
        values: values as in TOML and JSON.
        where: origin of the values, for errors.

    Raises:
        InputError: if a key is missing or unknown, or a value is wrong.

    Example:
        >>> class Limits(Table):
        ...     rate: Annotated[int, Meta(ge=0)] = 0
        >>> check(Limits, {"rate": 3}, "limits.toml").rate
        3
        >>> check(Limits, {"rate": True}, "limits.toml")
        Traceback (most recent call last):
            ...
        disinherit.common.errors.InputError: Expected a whole number of at least 0 as rate in \
limits.toml, but got True.
    """
    if is_dataclass(kind) and isinstance(values, Mapping):  # msgspec lets unknown keys pass
        known = [field.name for field in fields(kind)]
        if unknown := sorted(values.keys() - known):
            raise InputError(_unknown(known, unknown[0], where))
    try:
        return msgspec.convert(values, kind, builtin_types=_OWN)
    except msgspec.ValidationError as error:
        raise InputError(_explain(error, kind, values, where)) from None
    except UnicodeEncodeError as error:  # JSON may escape half a character
        got = error.object[error.start : error.end]
        raise InputError(
            f"Expected text that UTF-8 can hold in {where}, but got {got!r}."
        ) from None


@contextmanager
def located(where: str) -> Iterator[None]:
    """Prefix every `InputError` of the block with a place.

    Args:
        where: the place.

    Raises:
        InputError: the block's error, with the place in front.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _explain(error: msgspec.ValidationError, kind: Any, values: object, where: str) -> str:
    """Return what was expected, where, and what was found."""
    problem, of_key, path = (*_PLACE.split(str(error), maxsplit=1), "", "")[:3]
    declared: inspect.Type = inspect.type_info(kind)
    value: Any = values
    place = ""
    for field, index in _STEP.findall(path.removesuffix("`")):
        key = field or (_key(error, kind, values, value) if index == "..." else int(index))
        if isinstance(value, dict) and key not in value:
            break  # the unknown key itself reads like a path
        declared, place = _inside(declared, key), place + _shown(key, value, place)
        value = value[key]
    prefix = f"{place}." if place else ""
    if isinstance(error.__cause__, InputError):  # from a class with its own checks
        return f"{f'{place} in ' if place else ''}{where}: {error.__cause__}"
    if missing := _MISSING.match(problem):
        return f"Expected the key {prefix}{missing[1]} in {where}, but got none."
    if unknown := _UNKNOWN.match(problem):
        known = [field.encode_name for field in _fields(declared)]
        return _unknown(known, f"{prefix}{unknown[1]}", where)
    as_place = f" as {place}" if place else ""
    if of_key:
        as_place = f" as a key{f' of {place}' if place else ''}"
        declared, value = _key_type(declared), _key(error, kind, values, value)
    return f"Expected {_expected(declared)}{as_place} in {where}, but got {_got(declared, value)}."


def _unknown(known: Sequence[str], got: str, where: str) -> str:
    named = one_line(got, LOG_LINE.most)
    return f"Expected one of {', '.join(known)} in {where}, but got {named}."


def _key(error: msgspec.ValidationError, kind: Any, values: object, table: Any) -> Any:
    """Return the key of a table that an error is about, since msgspec does not name it."""
    for key in table:
        try:
            msgspec.convert(_swapped(values, table, {key: table[key]}), kind, builtin_types=_OWN)
        except (msgspec.ValidationError, UnicodeEncodeError) as found:
            if str(found) == str(error):
                return key
    raise error


def _swapped(values: Any, old: object, new: object) -> Any:
    """Return values with one of their tables replaced."""
    if values is old:
        return new
    if isinstance(values, dict):
        return {key: _swapped(value, old, new) for key, value in values.items()}
    return [_swapped(value, old, new) for value in values] if isinstance(values, list) else values


def _shown(key: str | int, value: Any, place: str) -> str:
    """Return one step of the path to a value; list entries with a name are shown by name."""
    if isinstance(key, str):
        return f".{key}" if place else key
    entry = value[key]
    names = [entry.get(name) for name in ("name", "label")] if isinstance(entry, dict) else []
    return next((f"[{name!r}]" for name in names if isinstance(name, str)), f"[{key}]")


def _options(declared: inspect.Type) -> list[inspect.Type]:
    """Return the possible types of a value."""
    if isinstance(declared, inspect.Metadata):
        return _options(declared.type)
    if isinstance(declared, inspect.UnionType):
        return [option for one in declared.types for option in _options(one)]
    return [] if isinstance(declared, inspect.NoneType) else [declared]


def _metadata(declared: inspect.Type) -> Iterator[inspect.Metadata]:
    if isinstance(declared, inspect.Metadata):
        yield declared
        yield from _metadata(declared.type)
    elif isinstance(declared, inspect.UnionType):
        for one in declared.types:
            yield from _metadata(one)


def _fields(declared: inspect.Type) -> tuple[inspect.Field, ...]:
    """Return the fields of a table type."""
    tables = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
    return next((one.fields for one in _options(declared) if isinstance(one, tables)), ())


def _inside(declared: inspect.Type, key: str | int) -> inspect.Type:
    """Return the declared type of a value inside another."""
    for field in _fields(declared):
        if field.encode_name == key:
            return field.type
    for one in _options(declared):
        if isinstance(one, inspect.DictType) and isinstance(key, str):
            return one.value_type
        if isinstance(one, (inspect.ListType, inspect.VarTupleType)) and isinstance(key, int):
            return one.item_type
    return inspect.AnyType()


def _key_type(declared: inspect.Type) -> inspect.Type:
    tables = (one for one in _options(declared) if isinstance(one, inspect.DictType))
    return next((one.key_type for one in tables), inspect.AnyType())


def _expected(declared: inspect.Type) -> str:
    for one in _metadata(declared):
        if described := (one.extra_json_schema or {}).get("description"):
            return str(described)
    return " or ".join(dict.fromkeys(map(_describe, _options(declared))))


def _describe(declared: inspect.Type) -> str:
    if isinstance(declared, (inspect.IntType, inspect.FloatType)):
        whole = isinstance(declared, inspect.IntType)
        bounds = [
            f"{words} {getattr(declared, name):g}"
            for name, words in _BOUNDS
            if getattr(declared, name) is not None
        ]
        return " ".join(["a whole number" if whole else "a number", " and ".join(bounds)]).strip()
    if isinstance(declared, inspect.EnumType):
        return " or ".join(repr(one.value) for one in declared.cls)
    if isinstance(declared, inspect.LiteralType):
        return " or ".join(map(repr, declared.values))
    if isinstance(declared, inspect.CustomType):
        return f"{'an' if declared.cls.__name__[0] in 'AEIOU' else 'a'} {declared.cls.__name__}"
    filled = " that is not empty" if getattr(declared, "min_length", None) else ""
    return _SIMPLE.get(type(declared), "a value") + filled


def _got(declared: inspect.Type, value: object) -> str:
    """Return a value as shown in an error; tables and lists may hold secrets."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else f"a list of {len(value)}"
    return "something else" if _is_secret(declared) else one_line(repr(value), LOG_LINE.most)


def _is_secret(declared: inspect.Type) -> bool:
    if any((one.extra or {}).get("secret") for one in _metadata(declared)):
        return True
    inner = [field.type for field in _fields(declared)]
    for one in _options(declared):
        if isinstance(one, inspect.DictType):
            inner.append(one.value_type)
        if isinstance(one, (inspect.ListType, inspect.VarTupleType)):
            inner.append(one.item_type)
    return any(map(_is_secret, inner))
