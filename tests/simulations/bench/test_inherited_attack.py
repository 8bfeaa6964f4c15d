"""The attack on inherited samples, with small models."""

import json
from pathlib import Path

import pytest

from disinherit.simulations.bench import inherited_attack
from tests import ROOT


@pytest.fixture(scope="module")
def measured() -> dict[str, object]:
    return inherited_attack.measure([0], "mlp", samples=400, epochs=30)


def test_the_change_of_a_replayed_root_is_near_retraining_in_every_descendant(
    measured: dict[str, dict[str, dict[str, dict[str, float]]]],
) -> None:
    rows = measured["rows"]
    assert set(rows) | set(measured["missing"]) == set(inherited_attack.METHODS)
    for model in inherited_attack.MODELS:
        untouched, exact = rows["no-op"][model]["auc"], rows["retraining"][model]["auc"]
        handed_down = rows["replay, handed down"][model]["auc"]
        assert untouched > exact
        assert abs(handed_down - exact) < 0.5 * (untouched - exact)
    assert rows["replay, handed down"]["root"] == rows["retraining"]["root"]


def test_a_root_with_registered_curvature_forgets_without_retained_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = ("no-op", "ekfac, handed down")
    methods = {name: inherited_attack.METHODS[name] for name in chosen}
    monkeypatch.setattr(inherited_attack, "METHODS", methods)
    rows = inherited_attack.measure([0], "mlp", samples=800, epochs=30)["rows"]
    for model in ("root", "child"):
        untouched, stepped = (rows[name][model]["auc"] for name in chosen)
        assert stepped < untouched - 0.1


def test_the_table_has_a_row_for_every_method_that_ran(measured: dict[str, object]) -> None:
    lines = inherited_attack.table(measured).splitlines()
    rows = measured["rows"]
    assert isinstance(rows, dict)
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(rows)


def test_the_figures_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inherited_attack, "METHODS", {"no-op": ("no-op", {})})
    words = ["attack", "--seeds", "1", "--samples", "200", "--epochs", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "figures.json")])
    inherited_attack.main()
    stored = json.loads((tmp_path / "figures.json").read_text())
    assert list(stored["rows"]) == ["no-op"]
    assert "| no-op |" in capsys.readouterr().out


def test_the_page_about_the_method_has_the_stored_figures() -> None:
    stored = json.loads((ROOT / "docs/figures/inherited-attack.json").read_text())
    assert not stored["missing"]
    assert inherited_attack.table(stored) in (ROOT / "docs/method.md").read_text()
