"""Ways to add the change of a root, with small models."""

import json
from pathlib import Path

import pytest

from disinherit.simulations.bench import adding_ways


def test_every_way_is_measured_shown_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adding_ways, "STRENGTHS", (1.0, 0.5))
    monkeypatch.setattr(adding_ways, "DAMPINGS", (10.0,))
    path = tmp_path / "figures.json"
    small = ["--seeds", "1", "--samples", "300", "--epochs", "10", "--out", str(path)]
    monkeypatch.setattr("sys.argv", ["x", *small])
    adding_ways.main()
    rows = json.loads(path.read_text())["rows"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(rows)
    assert {"attenuated, 10", "attenuated, 10, repair", "strength tuned", "retraining"} < set(rows)
    for model in adding_ways.SHARES:
        whole, untouched = rows["whole"][model]["auc"], rows["no-op"][model]["auc"]
        assert whole < rows["attenuated, 10"][model]["auc"] < untouched
