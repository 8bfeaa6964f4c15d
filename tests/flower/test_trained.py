"""What an app has trained: requests in vain are refused before Flower starts anything."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flower_app import APP, NAME, AppGrid, context_of, example_app

from disinherit.cli.main import run  # isort: skip
from disinherit.flower import forget_run  # isort: skip

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the example app on two nodes."""
    models = tmp_path_factory.mktemp("trained") / "models"
    with example_app(models) as load:
        grid = AppGrid(load("flower_app.client_app").app, 2)
        load("flower_app.server_app").app(grid, context_of())
    return models


@pytest.fixture
def models(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of them, where no run of Flower may start."""
    folder = tmp_path / "models"
    shutil.copytree(once, folder)
    monkeypatch.setenv("DISINHERIT_FLOWER", str(folder))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))

    def started(*words: str) -> list[str]:
        raise AssertionError(f"started: {words}")

    monkeypatch.setattr(forget_run, "flwr_command", started)
    yield folder
    assert not (tmp_path / "flwr").exists()


def refusal(capsys: Capture, *words: str) -> str:
    assert run(["flower", "forget", str(APP), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_nothing_is_started_or_made_where_nothing_was_trained(
    models: Path, capsys: Capture
) -> None:
    (models / NAME).rename(models / "me.other")
    reason = refusal(capsys, "--class", "3")
    assert f"Expected models of '{NAME}' in {models}, which has apps me.other. Train" in reason
    assert {path.name for path in models.iterdir() if path.is_dir()} == {"me.other"}
    (models / NAME / "server").mkdir(parents=True)
    assert "Train first" in refusal(capsys, "--class", "3")
    assert not any((models / NAME / "server").iterdir())


def test_models_of_the_first_release_are_named(models: Path, capsys: Capture) -> None:
    (models / NAME).rename(models / "flower_app")
    reason = refusal(capsys, "--class", "3")
    assert f"If they are of this project, rename the folder to {NAME}; if not" in reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--class", "33"], "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), but got '33'. Did you mean '3'?"),
        (["--client", "nod-1"], "(node-0, node-1), but got 'nod-1'. Did you mean 'node-1'?"),
        (["--samples", "node-7:3"], "(node-0, node-1), but got 'node-7'"),
        (["--samples", "node-0:3,x"], "of 'node-0', numbers from 0 to 718, but got 'x'"),
        (["--samples", "node-0:719"], "but got '719'"),
        (["--samples", "node-0:-1"], "but got '-1'"),
        (["--samples", "node-0:03"], "but got '03'"),
        (["--samples", "node-0:3,²"], "but got '²'"),
    ],
)
def test_requests_in_vain_are_refused_by_the_records(
    models: Path, words: list[str], reason: str, capsys: Capture
) -> None:
    assert reason in refusal(capsys, *words)


def test_what_the_records_do_not_show_is_left_to_the_nodes(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings of the first release do not say whether samples have ids of their own."""
    monkeypatch.setattr(forget_run, "flwr_command", lambda *_: ["echo", "disinherit: error: no"])
    words = ["flower", "forget", str(APP), "--samples", "node-0:718,0"]
    assert run(words) == 1
    kept = next((models / NAME / "node-0" / "trainings").iterdir())
    training = json.loads(kept.read_bytes())
    del training["positions"]
    kept.write_text(json.dumps(training))
    assert run([*words[:-1], "node-0:patient-7"]) == 1
    shutil.rmtree(models / NAME / "node-0")
    assert run([*words[:-1], "node-0:patient-7"]) == 1
