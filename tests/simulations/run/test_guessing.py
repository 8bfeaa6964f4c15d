"""Runs whose models know no more than a guess: nothing is unlearned in them."""

import dataclasses
from pathlib import Path

import pytest

from disinherit.common.errors import UntrainedError
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.run.guessing import check_knowledge, guesses, guessing_models
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.scenario.settings import Settings
from tests.support import direct_grid

KNOWS, GUESSES = [[9, 1], [1, 9]], [[4, 6], [5, 5]]
UNTRAINED = Settings(
    "digits", {"r1": ("3",)}, network="mlp", clients=2, limit=20, epochs=1, learning_rate=1e-9
)


@pytest.mark.parametrize(
    ("confusion", "guessed"),
    [
        (KNOWS, False),
        (GUESSES, True),
        ([[10, 0], [10, 0]], True),
        ([[90, 0], [10, 0]], True),  # names the larger class always
        ([[90, 0], [2, 8]], False),
        ([[1, 0], [0, 0]], True),  # one sample says nothing
    ],
)
def test_a_guess_is_as_good_as_naming_the_largest_class(
    confusion: list[list[int]], guessed: bool
) -> None:
    assert guesses(confusion) == guessed


def test_roots_are_refused_and_others_named() -> None:
    before = {"r1": KNOWS, "r2": GUESSES}
    check_knowledge(["r1", "gone"], before)
    with pytest.raises(UntrainedError, match="'r2' .* names 45.0 % of 20 .* a guess 50.0 %"):
        check_knowledge(["r1", "r2"], before)
    assert guessing_models(before) == ["r2"]


def run(settings: Settings, folder: Path, said: list[str]) -> RunReport:
    with pytest.MonkeyPatch.context() as monkeypatch:
        direct_grid.install(monkeypatch)
        return run_scenario(settings, folder, said.append)


def test_nothing_is_unlearned_where_the_root_knows_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(UntrainedError, match=r"'r1' to have learned .* Nothing was unlearned\."):
        run(UNTRAINED, tmp_path, said)
    assert said[-1] == "registering Fisher summaries"
    assert list(tmp_path.iterdir()) == []
    longer = dataclasses.replace(UNTRAINED, epochs=30, learning_rate=5e-3)
    report = run(longer, tmp_path, said)  # in the same folder
    assert report["campaign"]["outcome"] == "complete"
    assert not any("no better than a guess" in note for note in report["campaign"]["notes"])
