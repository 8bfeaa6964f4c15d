"""MLflow's stores of runs, in files and in SQLite: which logged models a run used and made.

A run that has models as inputs and others as outputs derived these from those.  The tag
`mlflow.parentRunId` is nesting of runs and no inheritance, and runs that only use a model, such as
evaluations, derive nothing.
"""

import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from disinherit.common.errors import DataError
from disinherit.common.text import one_line
from disinherit.families.evidence import Claim, Evidence, Found, Kind, Source
from disinherit.families.model_folders import read_folders
from disinherit.families.reading import is_inside, read_yaml

DATABASE = "mlflow.db"
FOLDER = "mlruns"
_META = "meta.yaml"
_MODELS = "models"
_MOST = 1_000_000
"""Rows of a database, or files of a store."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_INPUTS = "SELECT source_id, destination_type, destination_id FROM inputs LIMIT ?"
_LOGGED = (
    "SELECT model_id, name, artifact_location FROM logged_models "
    "WHERE lifecycle_stage IS NULL OR lifecycle_stage <> 'deleted' LIMIT ?"
)
_DELETED = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' LIMIT ?"


@dataclass(slots=True)
class _Store:
    """What a store says: logged models, and the models that runs used and made."""

    models: dict[str, tuple[str, list[Path]]] = field(default_factory=dict)
    used: dict[str, set[str]] = field(default_factory=dict)
    made: dict[str, set[str]] = field(default_factory=dict)

    def link(self, run: str, kind: str, model: str) -> None:
        """Take an input or an output of a run; those that are data sets are left out."""
        side = {"MODEL_INPUT": self.used, "MODEL_OUTPUT": self.made}.get(kind)
        if side is not None:
            side.setdefault(run, set()).add(model)


def read_database(path: Path, evidence: Evidence) -> None:
    """Add the models and runs in an SQLite database of MLflow.

    Args:
        path: the database; it is opened for reading only.
        evidence: gets models, claims and findings.

    Raises:
        DataError: if it is no database of MLflow with logged models (MLflow 3).
    """
    if not path.is_file():
        raise DataError(f"Expected a database of MLflow 3, but {path.name} is no regular file.")
    store = _Store()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            deleted = {row[0] for row in db.execute(_DELETED, (_MOST,))}
            for model_id, name, location in db.execute(_LOGGED, (_MOST,)):
                places = _places(str(location), path.parent)
                store.models[str(model_id)] = str(name), places
            for run, kind, model in db.execute(_INPUTS, (_MOST,)):
                if run not in deleted:
                    store.link(str(run), str(kind), str(model))
    except (sqlite3.Error, ValueError) as error:
        raise DataError(
            f"Expected a database of MLflow 3 as {path.name}, but {one_line(str(error), 200)}."
        ) from None
    _take(store, path, path.parent.resolve(), evidence)


def read_store(folder: Path, evidence: Evidence) -> None:
    """Add the models and runs in a folder that MLflow keeps its runs in.

    Args:
        folder: the folder, mostly `mlruns`.
        evidence: gets models, claims and findings.
    """
    store = _Store()
    for experiment in _folders(folder):
        for model in _folders(experiment / _MODELS):
            meta = _meta(model, evidence)
            model_id = str(meta.get("model_id", ""))
            if model_id and meta.get("lifecycle_stage") != "deleted":
                places = _places(str(meta.get("artifact_location", "")), folder.parent)
                # A store that was moved still names its old place.
                name = str(meta.get("name") or model_id)
                store.models[model_id] = name, [*places, model / "artifacts"]
        for run in _folders(experiment):
            if not (run / "inputs").is_dir() and not (run / "outputs").is_dir():
                continue
            if _meta(run, evidence).get("lifecycle_stage") == "deleted":
                continue
            for entry in _folders(run / "inputs"):
                meta = _meta(entry, evidence)
                if meta.get("source_type") == "MODEL":  # else a data set
                    store.link(run.name, "MODEL_INPUT", str(meta.get("source_id")))
            for entry in _folders(run / "outputs"):
                meta = _meta(entry, evidence)
                kind = str(meta.get("destination_type"))
                store.link(run.name, kind, str(meta.get("destination_id")))
    _take(store, folder, folder.resolve(), evidence)


def _take(store: _Store, path: Path, boundary: Path, evidence: Evidence) -> None:
    def key(model_id: str) -> str:
        return f"{path}: {model_id}"

    for model_id, (name, places) in sorted(store.models.items()):
        if not _ID.fullmatch(model_id):
            text = f"Expected the id of a logged model, but got {model_id[:40]!r}."
            evidence.note(Kind.UNREADABLE, str(path), text)
            continue
        found = Found(
            key(model_id),
            f"{name}/{model_id}",
            aliases=(model_id, f"models:/{model_id}"),
        )
        logged = _with_artifacts(found, places, boundary, evidence)
        evidence.add(_instead_of_folder(logged, evidence))
    for run in sorted(store.made):
        for child in sorted(store.made[run]):
            parents = sorted(store.used.get(run, set()) - {child})
            evidence.claims += [
                Claim(key(child), parent, Source.MLFLOW)
                for parent in parents
                if key(child) in evidence.models
            ]


def _with_artifacts(
    found: Found, places: Iterable[Path], boundary: Path, evidence: Evidence
) -> Found:
    """Return a logged model with the weights and class names in its artefacts, and their claims."""
    place = next((one for one in places if one.is_dir() and is_inside(one, boundary)), None)
    if place is None:
        return found
    inside = Evidence()
    read_folders(place, inside)
    evidence.findings += inside.findings
    if len(inside.models) != 1:
        if inside.models:
            text = f"{len(inside.models)} models in the artefacts of one: it is not pinned."
            evidence.note(Kind.WEIGHTS, found.key, text)
        return found
    (model,) = inside.models.values()
    evidence.claims += [replace(claim, child=found.key) for claim in inside.claims]
    return replace(
        found,
        path=model.path,
        files=model.files,
        weights=model.weights,
        labels=model.labels,
        adapter=model.adapter,
        fold=model.fold,
    )


def _instead_of_folder(logged: Found, evidence: Evidence) -> Found:
    """Return a logged model with the name that its folder was found under, and drop that model."""
    folder = evidence.models.pop(str(logged.path), None)
    if folder is None:
        return logged
    evidence.claims = [one for one in evidence.claims if one.child != folder.key]
    return replace(logged, aliases=(*logged.aliases, folder.name))


def _places(location: str, folder: Path) -> list[Path]:
    """Return where artefacts may be on this machine; none for those of servers."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return []
    if "\0" in location or parts.scheme not in ("", "file"):
        return []
    path = unquote(parts.path) if parts.scheme else location
    return [folder / path] if path else []


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
    except OSError:
        return []
    return found[:_MOST]


def _meta(folder: Path, evidence: Evidence) -> Mapping[str, Any]:
    path = folder / _META
    if not path.is_file():
        return {}
    try:
        return read_yaml(path)
    except DataError as error:
        evidence.note(Kind.UNREADABLE, str(path), str(error))
        return {}
