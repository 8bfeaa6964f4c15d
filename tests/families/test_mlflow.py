"""MLflow's stores, laid out as MLflow 3.17.2 does, in files and in SQLite."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from disinherit.common.errors import DataError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Kind
from disinherit.families.importing import Imported, Origin, import_families

BASE, TUNED, GONE = ("m-" + digit * 32 for digit in "123")
NAMES = {BASE: "base", TUNED: "tuned", GONE: "gone"}
RUNS: dict[str, tuple[str, list[str], list[str]]] = {
    "a" * 32: ("active", [], [BASE]),
    "b" * 32: ("active", [BASE], [TUNED, GONE]),
    "c" * 32: ("active", [TUNED], []),
    "d" * 32: ("deleted", [TUNED], [BASE]),
    "e" * 32: ("active", [TUNED], [TUNED]),
}
"""Run -> state, models that it used, models that it made; all but the first are nested in it."""

TABLES = """
CREATE TABLE runs (run_uuid VARCHAR(32) NOT NULL, lifecycle_stage VARCHAR(20));
CREATE TABLE tags (key VARCHAR(250) NOT NULL, value VARCHAR(8000), run_uuid VARCHAR(32) NOT NULL);
CREATE TABLE inputs (input_uuid VARCHAR(36) NOT NULL, source_type VARCHAR(36) NOT NULL,
    source_id VARCHAR(36) NOT NULL, destination_type VARCHAR(36) NOT NULL,
    destination_id VARCHAR(36) NOT NULL, step BIGINT DEFAULT '0' NOT NULL);
CREATE TABLE logged_models (model_id VARCHAR(36) NOT NULL, experiment_id INTEGER NOT NULL,
    name VARCHAR(500) NOT NULL, artifact_location VARCHAR(1000) NOT NULL,
    creation_timestamp_ms BIGINT NOT NULL, last_updated_timestamp_ms BIGINT NOT NULL,
    status INTEGER NOT NULL, lifecycle_stage VARCHAR(32), source_run_id VARCHAR(32));
"""


def meta(folder: Path, **values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump(values))


def weights(folder: Path, value: float) -> None:
    (folder / "model").mkdir(parents=True)
    save_file({"w": torch.full((2,), value)}, folder / "model/model.safetensors")
    (folder / "model/README.md").write_text("---\nbase_model: hub/other\n---\n")


def files(root: Path) -> Path:
    """A store in files."""
    experiment = root / "mlruns" / "980942419872570363"
    meta(experiment, experiment_id="980942419872570363", lifecycle_stage="active", name="family")
    for model, name in NAMES.items():
        folder = experiment / "models" / model
        meta(
            folder,
            artifact_location=(folder / "artifacts").as_uri(),
            lifecycle_stage="deleted" if model == GONE else "active",
            model_id=model,
            name=name,
            source_run_id=None,
            status=1,
        )
        if model != TUNED:
            weights(folder / "artifacts", len(name))
    for run, (stage, used, made) in RUNS.items():
        meta(experiment / run, lifecycle_stage=stage, run_id=run, status=3, tags=[])
        (experiment / run / "tags").mkdir()
        if run != "a" * 32:
            (experiment / run / "tags/mlflow.parentRunId").write_text("a" * 32)
        data = {"source_type": "DATASET", "source_id": BASE, "destination_type": "RUN"}
        meta(experiment / run / "inputs" / ("0" * 32), destination_id=run, tags={}, **data)
        for place, model in enumerate(used, 1):
            ends = {"source_id": model, "destination_id": model, "destination_type": "RUN"}
            meta(experiment / run / "inputs" / (str(place) * 32), source_type="MODEL", **ends)
        for model in made:
            ends = {"source_id": model, "destination_id": model, "source_type": "RUN_OUTPUT"}
            output = experiment / run / "outputs" / model
            meta(output, destination_type="MODEL_OUTPUT", step=3, **ends)
    return root


def database(root: Path) -> Path:
    """A store in SQLite."""
    with sqlite3.connect(root / "mlflow.db") as db:
        db.executescript(TABLES)
        for model, name in NAMES.items():
            place = root / "mlruns/1/models" / model / "artifacts"
            stage = "deleted" if model == GONE else "active"
            row = (model, 1, name, str(place), 0, 0, 1, stage, None)
            db.execute("INSERT INTO logged_models VALUES (?,?,?,?,?,?,?,?,?)", row)
            if model != TUNED:
                weights(place, len(name))
        number = 0
        for run, (stage, used, made) in RUNS.items():
            db.execute("INSERT INTO runs VALUES (?, ?)", (run, stage))
            db.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", ("a" * 32, run))
            rows = [("DATASET", "0" * 32, "RUN", run)]
            rows += [("RUN_INPUT", run, "MODEL_INPUT", model) for model in used]
            rows += [("RUN_OUTPUT", run, "MODEL_OUTPUT", model) for model in made]
            for row_ in rows:
                number += 1
                db.execute("INSERT INTO inputs VALUES (?,?,?,?,?,0)", (str(number), *row_))
    db.close()
    return root


MADE = {"files": files, "database": database}


@pytest.fixture(params=MADE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "work"
    root.mkdir()
    return MADE[request.param](root)


def edges(found: Imported) -> list[tuple[str, str, str]]:
    return [(edge.parent, edge.child, edge.source) for edge in found.graph.edges()]


def test_runs_derive_what_they_made_of_what_they_used(store: Path) -> None:
    """Nested runs, evaluations, deleted runs and models, and data sets derive nothing."""
    found = import_families([store])
    assert edges(found) == [(f"base--{BASE}", f"tuned--{TUNED}", "mlflow")]
    assert len(found.graph) == 2
    assert [(one.kind, one.model) for one in found.findings] == [
        (Kind.UNKNOWN_PARENT, f"base--{BASE}"),  # as the card in its artefacts says
        (Kind.WEIGHTS, f"tuned--{TUNED}"),
    ]
    assert import_families([store], known=found.graph).changed == ()
    assert edges(import_families([store], origin=Origin.MLFLOW)) == edges(found)


def test_weights_are_those_of_the_artefacts(store: Path) -> None:
    (path,) = store.glob(f"mlruns/*/models/{BASE}/artifacts/model/model.safetensors")
    record = import_families([store]).graph.model(f"base--{BASE}")
    assert record.digest == weights_digest(load_file(path))


def test_a_store_of_files_that_was_moved_is_read(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    files(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    found = import_families([tmp_path / "there/mlruns"])
    assert found.graph.model(f"base--{BASE}").digest
    assert len(edges(found)) == 1


def test_artefacts_beside_the_store_are_the_logged_model(tmp_path: Path) -> None:
    database(tmp_path)
    place = tmp_path / "made" / BASE
    place.parent.mkdir()
    shutil.move(tmp_path / "mlruns/1/models" / BASE / "artifacts", place)
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        row = (place.as_uri(), BASE)
        db.execute("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", row)
    db.close()
    (tmp_path / "child").mkdir()
    (tmp_path / "child/README.md").write_text(f"---\nbase_model: made/{BASE}/model\n---\n")
    found = import_families([tmp_path])
    digest = weights_digest(load_file(place / "model/model.safetensors"))
    assert [one.id for one in found.graph.models() if one.digest == digest] == [f"base--{BASE}"]
    assert (f"base--{BASE}", "child", "bases") in edges(found)
    assert Kind.SAME_WEIGHTS not in {one.kind for one in found.findings}


@pytest.mark.parametrize(
    "place", ["s3://bucket/x", "mlflow-artifacts:/1", "/etc", "file:///etc", ""]
)
def test_artefacts_elsewhere_are_not_read(place: str, tmp_path: Path) -> None:
    database(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        db.execute("UPDATE logged_models SET artifact_location = ?", (place,))
    db.close()
    found = import_families([tmp_path / "mlflow.db"])
    assert {record.digest for record in found.graph.models()} == {""}
    assert len(edges(found)) == 1


def test_other_databases_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 2000)
    with pytest.raises(DataError, match=r"a database of MLflow 3 as mlflow\.db"):
        import_families([tmp_path / "mlflow.db"])
    (tmp_path / "mlflow.db").unlink()
    sqlite3.connect(tmp_path / "mlflow.db").close()
    with pytest.raises(DataError, match="no such table"):
        import_families([tmp_path / "mlflow.db"])
    found = import_families([tmp_path])
    assert [one.kind for one in found.findings] == [Kind.UNREADABLE]


def test_odd_ids_and_malformed_files_are_listed(tmp_path: Path) -> None:
    files(tmp_path)
    (experiment,) = (tmp_path / "mlruns").iterdir()
    meta(experiment / "models" / "odd", model_id="m-\x1b[2J", name="odd")
    (experiment / ("b" * 32) / "meta.yaml").write_text("a: &a 1\nb: *a\n")
    found = import_families([tmp_path])
    kinds = [one.kind for one in found.findings]
    assert kinds.count(Kind.UNREADABLE) == 2
    assert len(found.graph) == 2
    assert all(one.text.isprintable() for one in found.findings)
