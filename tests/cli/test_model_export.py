"""`disinherit model export`: what a model is now, in a file."""

from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.client.store.store import ModelStore
from disinherit.common.tensors.checkpoints import load_checkpoint
from tests.support.command_line import as_json, error_line
from tests.support.stored_models import (
    assert_same_tensors,
    make_application,
    make_record,
    make_weights,
)


@pytest.fixture
def forgotten(tmp_path: Path) -> list[str]:
    """The words that export a model which has forgotten."""
    with ModelStore(tmp_path / "models", "anna") as store:
        store.add(make_record(), make_weights())
        store.apply(make_application())
    return ["model", "export", str(tmp_path / "models"), "--id", "m", "--owner", "anna", "--out"]


def test_the_version_of_now_is_written_and_the_one_before(
    forgotten: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    made = make_application()
    assert run([*forgotten, str(out)]) == 0
    assert capsys.readouterr().out == f"{made.successor.id}: {out}\n"
    assert_same_tensors(load_checkpoint(out), dict(made.weights))
    shown = as_json(capsys, *forgotten, str(out), "--as-it-was")
    assert shown == {"model": "m", "out": str(out)}
    assert_same_tensors(load_checkpoint(out), make_weights())


def test_wrong_places_are_refused(
    forgotten: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*forgotten, str(tmp_path / "no" / "m.safetensors")]) == 2
    assert "Expected a folder for" in error_line(capsys)
    forgotten[2] = str(tmp_path)
    assert run([*forgotten, str(tmp_path / "m.safetensors")]) == 2
    assert "has no index.db" in error_line(capsys)
    assert not (tmp_path / "index.db").exists()
