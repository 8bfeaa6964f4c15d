"""Runs of MLflow, written and read by the library itself."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from disinherit.common.errors import InputError
from disinherit.common.exports.mlflow_runs import EXPERIMENT, write_run
from tests.support.exports import PERSONAL, finished, model

pytestmark = [
    # Imported by what is tested, which keeps it quiet.
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra mlflow"),
    pytest.mark.filterwarnings("ignore"),  # of MLflow, when its stores are read here
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store; MLflow takes seconds to make one."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.setenv("MLFLOW_LOGGING_LEVEL", "WARNING")
    folder = tmp_path_factory.mktemp("mlflow")
    write_run(finished(), str(folder))
    yield folder
    patch.undo()


def _client(store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store}/mlflow.db")


def _run(store: Path) -> Any:
    client = _client(store)
    number = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (run,) = client.search_runs([number])
    return run


def test_a_run_has_what_was_asked_and_what_was_measured(store: Path) -> None:
    write_run(finished(), str(store))
    run = _run(store)
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1000, 3500)
    assert run.data.params["request"] == "q"
    assert run.data.params["method.scope"] == "head"
    assert (run.data.params["classes"], run.data.params["samples"]) == ("1", "1")
    assert run.data.tags["disinherit.request"] == "q"
    assert run.data.tags["disinherit.state"] == "partial"
    assert run.data.metrics["models/r1/forget_before"] == 0.9
    assert run.data.metrics["models/r1/forget_after"] == 0
    assert run.data.metrics["models/r1/retain_after"] == 0.75
    assert (run.data.metrics["states/verified"], run.data.metrics["affected"]) == (1, 2)
    files = store / "artifacts" / run.info.run_id / "artifacts"
    assert {path.name for path in files.iterdir()} == {"attestation.json", "report.json"}
    assert (files / "attestation.json").read_bytes() == finished().attestation


def test_another_export_brings_the_same_run_up_to_date(store: Path) -> None:
    first = write_run(finished(), str(store))
    second = write_run(finished(model("r1", after=0.5)), f"sqlite:///{store}/mlflow.db")
    run = _run(store)
    assert first == second == run.info.run_id
    assert run.data.metrics["models/r1/forget_after"] == 0.5
    back = model("r1", parameters=None, selected=None, successor=None, state="rolled_back")
    write_run(finished(back, state="rolled_back"), str(store))
    run = _run(store)
    assert run.data.tags["disinherit.state"] == "rolled_back"
    assert math.isnan(run.data.metrics["models/r1/forget_after"]), "it does not hold any more"
    assert math.isnan(run.data.metrics["states/verified"])
    write_run(finished(), str(store))
    history = _client(store).get_metric_history(first, "models/r1/forget_after")
    written = len(history)
    write_run(finished(), str(store))
    assert len(_client(store).get_metric_history(first, "models/r1/forget_after")) == written
    assert _run(store).data.metrics["models/r1/forget_after"] == 0


def test_nothing_personal_is_in_the_store(store: Path) -> None:
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        data = path.read_bytes()
        assert not [one for one in PERSONAL if one.encode() in data], path


def test_a_place_that_is_no_store_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("words")
    for place in ("file", "file/below"):
        with pytest.raises(InputError, match=r"store of MLflow at .*file"):
            write_run(finished(), str(tmp_path / place))
    monkeypatch.chdir(tmp_path)
    for uri in ("nowhere://here", "nowhere:here"):
        with pytest.raises(InputError, match="Expected a store of MLflow at nowhere:") as caught:
            write_run(finished(), uri)
        assert "\n" not in str(caught.value)
    for uri in ("sqlite:///file", "sqlite:////proc/none/mlflow.db"):  # without 100 s of trying
        with pytest.raises(InputError, match=f"Expected a store of MLflow at {uri}, but: "):
            write_run(finished(), uri)
    for uri in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        with pytest.raises(InputError, match=f"that stays, but '{uri}' is in memory"):
            write_run(finished(), uri)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["a?b", "100%20"])
def test_a_folder_whose_name_is_another_in_a_uri_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a folder without .* in its path"):
        write_run(finished(), str(tmp_path / name))
    assert [*tmp_path.iterdir()] == []
