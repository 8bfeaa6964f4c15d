"""`disinherit graph discover`: what it prints, what it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from disinherit.cli.main import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base, a copy in float16, and a second file in the folder of the copy."""
    whole = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    top = tmp_path / "models"
    files: dict[str, np.ndarray] = {"base/model": whole, "half/model": whole.astype(np.float16)}
    files["half/other"] = whole.astype(np.float16).astype(np.float32)
    for name, values in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"w": values}, top / f"{name}.safetensors")
    return top


def test_models_that_the_list_cannot_name_are_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edges.csv"
    assert run(["graph", "discover", str(folder), "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert out.read_text().splitlines() == [
        "child,parent,relation,weight,revision,confidence",
        "half,base,quantized,1,,0.95",
    ]
    assert "rounded to float16" in shown.out
    assert "Not in edges.csv: half/other: graph import takes another file" in shown.err
    assert run(["graph", "import", str(folder), str(out), "--dry-run"]) == 0
    assert "not pinned" not in capsys.readouterr().out


def test_relations_are_given_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "discover", str(folder), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["child"]: one["directed"] for one in found["kin"]} == {
        "half": True,
        "half/other": True,
    }


@pytest.mark.parametrize("name", ["edges.txt", "edges.json", "edges"])
def test_an_edge_list_is_csv(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["graph", "discover", str(folder), "--out", str(tmp_path / name)]) == 2
    assert "Expected a file that ends in .csv as --out" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_an_empty_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "discover", str(tmp_path)]) == 2
    assert "Expected weights in safetensors" in capsys.readouterr().err
