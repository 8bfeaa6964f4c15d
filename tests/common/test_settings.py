"""Settings: one line with the file, the key, the value and what was expected."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, field

from disinherit.client.agent import read_config
from disinherit.common.errors import InputError
from disinherit.common.settings import Filled, Secret, Table, check, located, parse, read
from disinherit.server.flower.owner_keys import read_owner_keys
from disinherit.server.service.principals import TokenBook
from disinherit.server.service.settings import read_settings

SECRET = "correct-horse-battery-staple"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Entry(Table):
    name: Filled
    secret: Secret = ""


class Plain(Table):
    name: Filled


class Whole(Table):
    text: Filled = "x"
    flag: bool = False
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    share: Annotated[float, Meta(gt=0)] = 1.0
    when: Annotated[datetime, Meta(tz=True)] | None = None
    place: Annotated[str, Meta(pattern=r"^\S+:\d+\Z", description="host:port")] = "a:1"
    colour: Colour = Colour.RED
    head: Literal["old", "new"] = "old"
    entries: tuple[Entry, ...] = ()
    named: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Entry] = field(default_factory=dict)
    mixed: list[str | Plain] = field(default_factory=list)
    password: Secret | None = None


def test_declared_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    path.write_text(
        'text = "t"\nflag = true\ncount = 9\nshare = 2\nwhen = 2027-01-01T00:00:00Z\n'
        'colour = "blue"\nmixed = ["a", { name = "b" }]\n[named]\na = 1\n[[entries]]\nname = "c"\n'
    )
    found = read(Whole, path, "a file of everything")
    assert (found.text, found.flag, found.count, found.share) == ("t", True, 9, 2.0)
    assert found.when == datetime(2027, 1, 1, tzinfo=UTC)
    assert (found.colour, found.named) == (Colour.BLUE, {"a": 1})
    assert found.mixed == ["a", Plain(name="b")]
    assert found.entries == (Entry(name="c"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text = 1", "Expected text that is not empty as text in w.toml, but got 1."),
        ("text = ''", "Expected text that is not empty as text in w.toml, but got ''."),
        ("flag = 1", "Expected true or false as flag in w.toml, but got 1."),
        ("flag = 'yes'", "Expected true or false as flag in w.toml, but got 'yes'."),
        (
            "count = true",
            "Expected a whole number of at least 1 and of at most 9 as count in w.toml, "
            "but got True.",
        ),
        (
            "count = 0",
            "Expected a whole number of at least 1 and of at most 9 as count in w.toml, but got 0.",
        ),
        (
            "count = 1.5",
            "Expected a whole number of at least 1 and of at most 9 as count in w.toml, "
            "but got 1.5.",
        ),
        ("share = nan", "Expected a number above 0 as share in w.toml, but got nan."),
        ("share = true", "Expected a number above 0 as share in w.toml, but got True."),
        (
            "when = '2027-01-01T00:00:00Z'",
            "Expected a time with its zone (2027-01-01T00:00:00Z) as when in w.toml, "
            "but got '2027-01-01T00:00:00Z'.",
        ),
        ("place = 'here'", "Expected host:port as place in w.toml, but got 'here'."),
        ("place = 3", "Expected host:port as place in w.toml, but got 3."),
        ('place = "a:1\\n"', "Expected host:port as place in w.toml, but got 'a:1\\n'."),
        ("colour = 'pink'", "Expected 'red' or 'blue' as colour in w.toml, but got 'pink'."),
        ("head = 'newer'", "Expected 'new' or 'old' as head in w.toml, but got 'newer'."),
        ("entries = 'a'", "Expected a list as entries in w.toml, but got something else."),
        ("[[entries]]", "Expected the key entries[0].name in w.toml, but got none."),
        (
            "[[entries]]\nname = 'a'\ncolour = 1",
            "Expected one of name, secret in w.toml, but got entries['a'].colour.",
        ),
        ("[named]\na = 1\nb = 'x'", "Expected a whole number as named.b in w.toml, but got 'x'."),
        ("[tables.a]\nname = 'x'\n[tables.b]", "Expected the key tables.b.name in w.toml, but got"),
        ("mixed = ['a', 3]", "Expected text or a table as mixed[1] in w.toml, but got 3."),
        ("mixed = [{ name = 3 }]", "Expected text that is not empty as mixed[0].name in w.toml"),
        ("flags = true", "Expected one of text, flag, count,"),
        ('"a - at `$.b`" = 1', "but got a."),
        ('"a\\u001b[2J" = 1', "but got a [2J."),
        ("text = [1", "Expected TOML in w.toml, but:"),
        (f"password = ['{SECRET}']", "Expected text as password in w.toml, but got a list of 1."),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Whole, text, "w.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a file of all '.*none\.toml', but: No such"):
        read(Whole, tmp_path / "none.toml", "a file of all")
    (tmp_path / "bytes.toml").write_bytes(b"text = '\xff'")
    with pytest.raises(InputError, match=r"Expected UTF-8 in '.*bytes\.toml'"):
        read(Whole, tmp_path / "bytes.toml", "a file of all")


def test_an_error_names_the_place_of_a_value_that_is_checked_later() -> None:
    with (
        pytest.raises(InputError, match=r"^hours in a\.toml: Expected h"),
        located("hours in a.toml"),
    ):
        raise InputError("Expected hours, but got 'x'.")


@pytest.mark.parametrize("value", [{}, "text", 3, [1]])
def test_values_from_any_source_are_checked(value: Any) -> None:
    assert check(Whole, {}, "w.toml") == Whole()
    with pytest.raises(InputError, match=r"Expected a list|Expected a table"):
        check(list[Entry] if value == {} else Whole, value, "w.toml")


def test_half_a_character_is_one_line_without_its_context() -> None:
    """JSON may escape it; TOML cannot."""
    with pytest.raises(InputError, match=r"UTF-8 can hold in r\.json, but got '\\ud800'\.$"):
        check(list[int], [f"{SECRET}\ud800"], "r.json")


@pytest.mark.parametrize(
    ("name", "text", "reads"),
    [
        ("tokens.toml", f'token = "{SECRET}"', TokenBook.read),
        ("tokens.toml", f'[token]\nsha256 = "{SECRET}"', TokenBook.read),
        (
            "tokens.toml",
            f'[[token]]\nname = "a"\nrole = "viewer"\nsha256 = "{SECRET}"',
            TokenBook.read,
        ),
        (
            "serve.toml",
            f'database = {{ url = "postgresql://me:{SECRET}@host" }}',
            lambda path: read_settings(path, {}, {}),
        ),
        (
            "owners.toml",
            f'[owners]\nnorth = """-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n"""',
            read_owner_keys,
        ),
        ("agent.toml", f'owner = ["{SECRET}"]', read_config),
    ],
)
def test_a_secret_in_the_wrong_place_is_in_no_error(
    name: str, text: str, reads: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name) as caught:
        reads(tmp_path / name)
    assert SECRET not in str(caught.value)
