"""A request as a run of MLflow: parameters, figures of each version, report and attestation."""

import json
import math
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from disinherit.common.errors import InputError
from disinherit.common.exports.finished import FinishedRequest, figures_of
from disinherit.common.text import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "disinherit"
DATABASE = "mlflow.db"
"""Name of the store in a folder."""

REQUEST = "disinherit.request"
SHA256 = "disinherit.request_sha256"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_SQLITE = "sqlite:///"
_CODED = re.compile(r"\?|%[0-9A-Fa-f]{2}")
_IN_MEMORY = re.compile(r"sqlite:/*(:memory:)?(\?.*)?")
_MOST = 1000
"""Figures of one message, at most: MLflow takes no more."""


def write_run(done: FinishedRequest, place: str) -> str:
    """Write a request as a run, or bring the run of a former export up to date.

    Args:
        done: the request.
        place: a folder, for an SQLite store `mlflow.db` in it, or a tracking URI of MLflow.

    Returns:
        The id of the run.

    Raises:
        InputError: if MLflow cannot write there, or it would be gone with this program.
        ModuleNotFoundError: without the extra `mlflow`.
    """
    check_store(place)
    with _quiet():
        from mlflow import MlflowClient

        try:
            uri, artifacts = _store(place)
            client = MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            number = (
                client.create_experiment(EXPERIMENT, artifact_location=artifacts)
                if experiment is None
                else experiment.experiment_id
            )
            return _write(client, number, done)
        except InputError:
            raise
        except Exception as error:  # of MLflow, of its database, or of the network
            raise InputError(
                f"Expected a store of MLflow at {place}, but: {one_line(str(error), 400)}"
            ) from error


def check_store(place: str) -> None:
    """Refuse a store of MLflow that would be gone with this program.

    Args:
        place: as of `write_run`.

    Raises:
        InputError: if it would.
        ModuleNotFoundError: without the extra `mlflow`.
    """
    if _IN_MEMORY.fullmatch(place):
        raise InputError(
            f"Expected a store of MLflow that stays, but {place!r} is in memory. Give a folder."
        )
    with _quiet():
        import mlflow  # noqa: F401


def _write(client: "MlflowClient", experiment: str, done: FinishedRequest) -> str:
    from mlflow.entities import Metric, Param, RunTag

    run = _run(client, experiment, done)
    run_id: str = run.info.run_id
    tags = {
        "disinherit.state": done.state,
        "disinherit.attestation_sha256": done.attestation_sha256,
        "mlflow.note.content": done.predicate["notice"],
    }
    values = {k: v for k, v in _parameters(done).items() if k not in run.data.params}
    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in values.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    now = int(time.time() * 1000)
    changed = _changed(run.data.metrics, _figures(done))
    metrics = [Metric(name, value, now, 0) for name, value in changed.items()]
    for start in range(0, len(metrics), _MOST):
        client.log_batch(run_id, metrics=metrics[start : start + _MOST])
    client.log_text(run_id, json.dumps(done.report, indent=2) + "\n", "report.json")
    client.log_text(run_id, done.attestation.decode(), "attestation.json")
    status = "KILLED" if done.state == "aborted" else "FINISHED"
    client.set_terminated(run_id, status, end_time=done.ended_us // 1000)
    return run_id


def _run(client: "MlflowClient", experiment: str, done: FinishedRequest) -> "Run":
    """Return the run of a former export, else a new one."""
    tags = {REQUEST: done.id, SHA256: done.request_sha256}
    query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment], query, max_results=1)
    if found:
        return found[0]
    return client.create_run(
        experiment, start_time=done.begun_us // 1000, tags=tags, run_name=done.id
    )


def _parameters(done: FinishedRequest) -> dict[str, str]:
    """Return what was asked: its method, and numbers of what it named."""
    request = done.predicate["request"]
    method = {f"method.{name}": value for name, value in request["method"].items()}
    counts = done.counts()
    named = {"request": done.id, "forgets": request["forgets"], **counts}
    return {name: str(value) for name, value in (named | method).items()}


def _figures(done: FinishedRequest) -> dict[str, float]:
    """Return the figures of all versions, by the names that they have in MLflow."""
    coverage = done.predicate["coverage"]
    found = {"affected": float(coverage["affected"])}
    found |= {f"states/{state}": float(n) for state, n in coverage["by_state"].items()}
    for model in done.models:
        # Ids have no colon, and names of MLflow no tilde.
        name = model["id"].replace("~", ":")
        found |= {f"models/{name}/{figure}": n for figure, n in figures_of(model).items()}
    return found


def _changed(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return the figures to write; those that do not hold any more are no numbers from now on."""
    gone = {k: math.nan for k, v in before.items() if k not in now and not math.isnan(v)}
    return {k: v for k, v in now.items() if before.get(k) != v} | gone


def _store(place: str) -> tuple[str, str | None]:
    """Return a tracking URI, and where files of a new experiment go; `None` as MLflow chooses.

    Raises:
        InputError: if its path would mean another one to MLflow.
        OSError: if there cannot be a folder.
        sqlite3.Error: if a database there cannot be opened: MLflow would try for 100 seconds.
    """
    if _URI.match(place) and not place.startswith(_SQLITE):
        return place, None
    if place.startswith(_SQLITE):
        uri, database = place, Path(unquote(place.removeprefix(_SQLITE).partition("?")[0]))
    else:
        database = Path(place).absolute() / DATABASE
        uri = f"{_SQLITE}{database}"
        if odd := _CODED.search(uri):  # MLflow would take it for another place
            raise InputError(
                f"Expected a folder without {odd.group()!r} in its path, which has a meaning to "
                f"MLflow, but got {place!r}."
            )
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("PRAGMA schema_version")
    return uri, (database.absolute().parent / "artifacts").as_uri()


@contextmanager
def _quiet() -> Iterator[None]:
    """Have MLflow report to nobody, and print nothing of its own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds; 7 take 4 minutes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
