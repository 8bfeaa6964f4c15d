"""DVC lock files: edges between models whose files are still those of the lock."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from disinherit.families import dvc
from disinherit.families.evidence import Kind
from disinherit.families.importing import Imported, import_families


def model(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.full((2,), value)}, path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def folder_md5(path: Path) -> str:
    """As DVC 3 makes it."""
    listed = [
        {"md5": md5(file), "relpath": file.relative_to(path).as_posix()}
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two stages: a base from data, and a fine-tune of the base, in folders."""
    model(tmp_path / "models/base/model.safetensors", 1)
    model(tmp_path / "models/tuned/model.safetensors", 2)
    (tmp_path / "models/tuned/config.json").write_text("{}")
    (tmp_path / "data.csv").write_text("x\n")
    base, tuned = tmp_path / "models/base/model.safetensors", tmp_path / "models/tuned"
    entry = {"hash": "md5", "size": 1}
    made = {"path": "models/base/model.safetensors", "md5": md5(base), **entry}
    stages: dict[str, Any] = {
        "train": {
            "cmd": "python train.py",
            "deps": [{"path": "data.csv", "md5": md5(tmp_path / "data.csv"), **entry}],
            "outs": [made],
        },
        "tune@news": {
            "cmd": "python tune.py",
            "deps": [made, {"path": "data.csv", "md5": md5(tmp_path / "data.csv"), **entry}],
            "params": {"params.yaml": {"lr": 0.1}},
            "outs": [{"path": "models/tuned", "md5": folder_md5(tuned), "nfiles": 2, **entry}],
        },
    }
    lock = json.loads(json.dumps({"schema": "2.0", "stages": stages}))  # no aliases
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    return tmp_path


def edges(found: Imported) -> list[tuple[str, str, str]]:
    return [(edge.parent, edge.child, edge.source) for edge in found.graph.edges()]


EDGE = ("models--base", "models--tuned", "dvc")


def test_an_output_descends_from_the_models_it_was_made_of(project: Path) -> None:
    assert edges(import_families([project])) == [EDGE]
    found = import_families([project / "dvc.lock"])
    assert edges(found) == [EDGE]
    assert found.findings == ()


@pytest.mark.parametrize(
    ("side", "place", "file"),
    [
        ("deps", 0, "models/base/tokenizer.json"),
        ("outs", 0, "models/tuned/metrics.json"),
        ("outs", 0, "models/tuned/config.json"),
    ],
)
def test_a_file_beside_the_weights_is_no_model(
    side: str, place: int, file: str, project: Path
) -> None:
    (project / file).write_text("{}")
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["tune@news"][side][place] = {"path": file, "md5": md5(project / file)}
    (project / "dvc.lock").write_text(yaml.safe_dump(json.loads(json.dumps(lock))))
    found = import_families([project])
    assert edges(found) == []
    assert found.findings == ()


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_files_that_have_changed_since_are_listed_and_not_taken(which: str, project: Path) -> None:
    model(project / "models" / which / "model.safetensors", 3)
    found = import_families([project])
    assert edges(found) == []
    assert [one.kind for one in found.findings] == [Kind.STALE]


@pytest.mark.parametrize("path", ["../../etc", "/etc", "models/\0", 3, None, ["a"]])
def test_paths_elsewhere_mean_no_model(path: Any, project: Path) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["tune@news"]["deps"][0]["path"] = path
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert edges(import_families([project])) == []


@pytest.mark.parametrize("text", ["stages: [1, 2]\n", "stages: {a: 1}\n", "[]", "a: &a 1\nb: *a\n"])
def test_other_files_say_nothing(text: str, project: Path) -> None:
    (project / "dvc.lock").write_text(text)
    assert edges(import_families([project])) == []


def test_a_model_that_many_stages_use_is_hashed_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    for number in range(5):
        lock["stages"][f"again-{number}"] = json.loads(json.dumps(lock["stages"]["tune@news"]))
    (project / "dvc.lock").write_text(yaml.safe_dump(json.loads(json.dumps(lock))))
    hashed: list[str] = []
    of_file = dvc._of_file

    def counted(file: Path) -> str:
        hashed.append(file.name)
        return of_file(file)

    monkeypatch.setattr(dvc, "_of_file", counted)
    assert edges(import_families([project])) == [EDGE]
    assert sorted(hashed) == ["config.json", "model.safetensors", "model.safetensors"]
