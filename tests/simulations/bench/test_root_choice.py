"""Root methods on fitted roots, with a small root."""

import json
from pathlib import Path
from typing import Any

import pytest

from disinherit.simulations.bench import root_choice


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(root_choice, "METHODS", ("ekfac", "auto"))
        return root_choice.measure("mlp", epochs=10, samples=300, seed=0, wrong=True)


def test_auto_takes_one_of_the_methods_and_says_what_it_saw(measured: dict[str, Any]) -> None:
    chosen = measured["auto"]
    assert chosen["method"] in root_choice.METHODS
    assert chosen["auc"] == measured.get(chosen["method"], chosen)["auc"]
    assert "attack on losses, of which" in chosen["note"]
    assert measured["replay"]["auc"] < measured["no-op"]["auc"]


def test_what_was_measured_is_shown_and_stored(
    measured: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(root_choice, "measure", lambda *_, **__: measured)
    path = tmp_path / "figures.json"
    arguments = ["x", "--network", "mlp", "--epochs", "20", "--seeds", "1", "--out", str(path)]
    monkeypatch.setattr("sys.argv", arguments)
    root_choice.main()
    assert [cell["wrong"] for cell in json.loads(path.read_text())] == [True, False]
    lines = capsys.readouterr().out.splitlines()
    assert "| | 20 epochs, wrong labels | 20 epochs, right labels |" in lines
    assert sum(line.startswith("| ekfac | ") for line in lines) == 1
