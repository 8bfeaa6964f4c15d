"""The run's folder: what is accepted, refused, removed and left alone."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from disinherit.common.errors import CheckpointError, InputError
from disinherit.simulations.run import folder as run_folder
from disinherit.simulations.run.folder import (
    copy_database,
    load_report,
    load_settings,
    prepare_folder,
    save_report,
)
from disinherit.simulations.scenario.settings import Settings
from tests.support.report import make_report

THREE = Settings("digits", {"r1": ("3",)})


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder as a run leaves it."""
    folder = tmp_path / "run"
    assert not prepare_folder(folder, THREE)
    (folder / "owners" / "owner-0").mkdir(parents=True)
    (folder / "owners" / "owner-0" / "index.db").write_bytes(b"models")
    (folder / "coordinator.db").write_bytes(b"graph")
    save_report(folder, make_report())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_folder_is_made_with_its_settings(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert not prepare_folder(folder, THREE)
    assert load_settings(folder) == THREE
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_finished_run_of_the_same_settings_is_left_as_it_is(finished: Path) -> None:
    before = contents(finished)
    assert prepare_folder(finished, THREE)
    assert contents(finished) == before
    assert load_report(finished) == make_report()


def test_other_settings_are_refused(finished: Path) -> None:
    before = contents(finished)
    with pytest.raises(InputError, match="run of other settings"):
        prepare_folder(finished, dataclasses.replace(THREE, epochs=9))
    assert contents(finished) == before


def test_a_run_that_did_not_end_is_started_again(finished: Path) -> None:
    (finished / "report.json").unlink()
    (finished / "mine.txt").write_text("kept")
    assert not prepare_folder(finished, THREE)
    assert set(contents(finished)) == {"run.json", "mine.txt"}


@pytest.mark.parametrize("outcome", ["partial", "failed"])
def test_a_campaign_that_did_not_reach_every_model_is_started_again(
    outcome: str, finished: Path
) -> None:
    report = json.loads((finished / "report.json").read_text())
    report["campaign"]["outcome"] = outcome
    (finished / "report.json").write_text(json.dumps(report))
    assert not prepare_folder(finished, THREE)
    assert set(contents(finished)) == {"run.json"}


def test_foreign_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        prepare_folder(tmp_path, THREE)
    assert contents(tmp_path) == {"thesis.tex": b"precious"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_text("precious")
    for folder in (file, file / "below"):
        with pytest.raises(CheckpointError, match="Choose another --out") as caught:
            prepare_folder(folder, THREE)
        assert "\n" not in str(caught.value)
    assert file.read_text() == "precious"


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointError, match="able to write to .*Permission denied"):
        prepare_folder(tmp_path / "run", THREE)


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: b"\xff\xfe" + data,
    lambda data: b"[]",
    lambda data: b"{}",
]


@pytest.mark.parametrize("name", ["run.json", "report.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_nothing_is_changed(
    name: str, damage: Callable[[bytes], bytes], finished: Path
) -> None:
    (finished / name).write_bytes(damage((finished / name).read_bytes()))
    before = contents(finished)
    with pytest.raises(CheckpointError, match=name) as caught:
        prepare_folder(finished, THREE)
    assert caught.value.exit_code == 2
    assert contents(finished) == before


def test_the_report_that_marks_the_end_is_written_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(run_folder, "write_atomic", lambda path, _: written.append(path.name))
    save_report(tmp_path, make_report())
    assert written == ["report.html", "report.json"]


def test_the_database_is_copied_with_what_was_not_yet_merged_into_it(tmp_path: Path) -> None:
    source, target = tmp_path / "run", tmp_path / "copy"
    source.mkdir()
    target.mkdir()
    (source / "coordinator.db").write_bytes(b"graph")
    (source / "coordinator.db-wal").write_bytes(b"log")
    assert copy_database(source, target) == target / "coordinator.db"
    assert contents(target) == contents(source)


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"coordinator\.db, but it is missing"):
        copy_database(tmp_path, tmp_path)
