"""Bounded reads of files from outside."""

import os
from pathlib import Path

import pytest

from disinherit.common.errors import DataError
from disinherit.families.reading import MOST_TEXT, find_below, is_inside, parse_yaml, read_text

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (BOMB, r"without aliases in README.md, but got \*a in line 2. Write there what &a stands"),
        ("a: " + "[" * 5000, "levels of values"),
        ("- " * 5000 + "a", "levels of values"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\na: 2\n", "each key once"),
        ("a: {b: 1, b: 2}\n", "each key once"),
        ("a: 2024-13-45\n", "month"),
        ("a: " + "9" * 5000 + "\n", "limit"),
        ("? [a]\n: b\n", "unhashable"),
        ("a: \x1b[2J\n", "control characters"),
        ("a: b: c\n", "mapping values"),
        ("- a\n", "a table"),
        ("a: 1\n---\nb: 2\n", "single document"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text: str, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        parse_yaml(text, "README.md")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_repeated_key_among_many_is_found_at_once() -> None:
    keys = "".join(f"k{number}: 1\n" for number in range(50_000))
    with pytest.raises(DataError, match="'k49999' again"):
        parse_yaml(f"{keys}k49999: 1\n", "f")


def test_plain_yaml_is_read() -> None:
    assert parse_yaml("a: [1, b]\nc: {d: no}\n1: x\n", "f") == {
        "a": [1, "b"],
        "c": {"d": False},
        "1": "x",
    }
    assert parse_yaml("", "f") == {}


def test_other_files_than_text_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (MOST_TEXT + 1))
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "bytes", "large", "folder", "missing"):
        with pytest.raises(DataError):
            read_text(tmp_path / name)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbftext")
    assert read_text(tmp_path / "marked") == "text"


def test_links_out_of_a_folder_are_outside(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_text("s")
    (inside / "file").write_text("f")
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "link").symlink_to("file")
    (inside / "broken").symlink_to("gone")
    (inside / "circle").symlink_to("circle")
    found = {path.name for path in inside.iterdir() if is_inside(path, inside.resolve())}
    assert found == {"file", "link"}
    assert find_below(tmp_path, "file") == [inside / "file"]
