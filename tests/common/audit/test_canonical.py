"""Canonical JSON: one form for each value, that of RFC 8785."""

import enum
import json
from types import MappingProxyType
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import given

from disinherit.common.audit.canonical import Json, canonical
from disinherit.common.audit.chain import AuditEvent, link
from disinherit.common.errors import AuditError
from tests.support.audit_cases import JSON


@given(JSON)
def test_canonical_json_equals_another_writers(value: Json) -> None:
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data
    assert data == rfc8785.dumps(cast("Any", value))


@pytest.mark.parametrize("name", ["name", "\u00e4"])
def test_text_that_is_not_unicode_has_no_canonical_form(name: str) -> None:
    with pytest.raises(AuditError, match="text that is Unicode"):
        canonical({name: "\ud800"})


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value: Json = {"\u20ac": '\x0f\n"\\', "1": [True, False, -1], "a": {"é": "\x7f"}}
    expected = '{"1":[true,false,-1],"a":{"é":"\x7f"},"\u20ac":"\\u000f\\n\\"\\\\"}'
    assert canonical(value) == expected.encode()


def test_types_derived_from_those_of_json_are_written_as_these() -> None:
    class Name(str):
        __slots__ = ()

    class Kind(enum.StrEnum):
        ADDED = "added"

    class Number(enum.IntEnum):
        TWO = 2

    values: Any = {Name("b"): (Name("é"), Kind.ADDED), "a": MappingProxyType({"x": Number.TWO})}
    plain: Json = {"a": {"x": 2}, "b": ["é", "added"]}
    assert canonical(values) == canonical(plain) == rfc8785.dumps(cast("Any", plain))


def test_keys_are_sorted_as_the_standard_says_also_beyond_the_basic_plane() -> None:
    """RFC 8785, 3.2.3: by UTF-16 units, where U+1F600 begins with D83D and comes before U+FB33."""
    keys: dict[str, Json] = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = list(json.loads(canonical(keys)))
    assert order == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), b"x", 2**53, -(2**53), {1: "a"}, "\ud800", [[[[[[[[1]]]]]]]]]
)
def test_values_without_canonical_form_are_refused(value: Json) -> None:
    with pytest.raises(AuditError, match="Expected"):
        canonical(value)
    with pytest.raises(AuditError, match="Expected"):
        link(AuditEvent("sent", 0, "coordinator", parameters={"x": value}), None, None)
