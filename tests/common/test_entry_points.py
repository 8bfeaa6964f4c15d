"""Entry points: those of every place on the path, read once."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.common import entry_points
from disinherit.common.entry_points import installed

GROUP = "disinherit.root_methods"


def package(folder: Path, name: str, value: str) -> Path:
    """A place on the path with one installed package, which has one root method."""
    about = folder / "other_package-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
    return folder


def test_they_are_sorted_and_those_of_a_new_place_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = installed(GROUP)
    assert list(before) == sorted(before)
    assert "aaa" not in before
    monkeypatch.syspath_prepend(package(tmp_path, "aaa", "other:Method"))
    after = installed(GROUP)
    assert list(after) == ["aaa", *before]
    assert after["aaa"].value == "other:Method"
    assert installed("nobody.has.this") == {}


def test_of_one_name_it_is_the_first_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "last", "replay", "last:Method"))
    monkeypatch.syspath_prepend(package(tmp_path / "first", "replay", "first:Method"))
    assert installed(GROUP)["replay"].value == "first:Method"


def test_they_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(GROUP)

    def read_again(**_: str) -> Iterator[importlib.metadata.EntryPoint]:
        raise AssertionError("the files of all packages were read again")

    monkeypatch.setattr(entry_points, "entry_points", read_again)
    assert "replay" in installed(GROUP)
