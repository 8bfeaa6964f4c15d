"""The reference of configurations: made from the code, and with all of it."""

import re
import typing

import msgspec
import pytest

from disinherit.cli.init import _AGENT, _SERVE
from tests import ROOT
from tests.support.configuration_page import FILES, PAGE, UNITS, _tables, meanings, page, variables

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")

TABLES = [
    table
    for file, top in FILES.items()
    for table in (top, *(inner for _, inner, _ in _tables(file, top)))
]
HOUSES = (
    *("cli", "client", "common", "deploy", "families", "flower", "server"),
    *("simulations", "ui"),
)
INTERNAL = {"DISINHERIT_OWNERS"}
"""A digest that restarts a program when it changes: nobody sets it."""


def test_the_reference_is_made_from_the_code() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_key_has_a_meaning_and_numbers_have_a_unit(table: type) -> None:
    declared = typing.cast(msgspec.inspect.StructType, msgspec.inspect.type_info(table))
    assert list(meanings(table)) == [field.encode_name for field in declared.fields]
    for field in declared.fields:
        numbers = (msgspec.inspect.IntType, msgspec.inspect.FloatType)
        if isinstance(field.type, numbers):
            assert (table.__name__, field.encode_name) in UNITS


@pytest.mark.parametrize(("file", "text"), [("serve.toml", _SERVE), ("agent.toml", _AGENT)])
def test_keys_of_first_files_are_in_the_reference(file: str, text: str) -> None:
    part = PAGE.read_text().partition(f"\n## `{file}`\n")[2].partition("\n## ")[0]
    for key in re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE):
        assert f"| `{key}` |" in part


def test_every_variable_of_ours_is_in_the_reference() -> None:
    read = {
        name
        for house in HOUSES
        for path in (ROOT / house).glob("**/*.*")
        if path.suffix in (".py", ".yaml", ".service")
        for name in re.findall(r"\bDISINHERIT_[A-Z_]+\b", path.read_text())
    }
    listed = {name for cell, _, _ in variables() for name in re.findall(r"DISINHERIT_\w+", cell)}
    assert listed == read - INTERNAL
