"""The stock Flower app of `examples/flower_app`: its graph is recorded, and a request is served."""

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import InheritanceKind
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.states import TaskState
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.engine import simulate
from tests import ROOT
from tests.support import flower_rounds  # noqa: F401  (first of all that imports Flower)
from tests.support.direct_grid import DirectGrid

APP = ROOT / "examples" / "flower_app"
CONFIG = {
    "num-server-rounds": 2,
    "fraction-evaluate": 0.5,
    "local-epochs": 5,
    "learning-rate": 0.1,
    "batch-size": 32,
}
DIGIT = "3"


class Configured(ClientApp):
    """The app's client with the run config that `flwr run` would give it, and a seed."""

    def __call__(self, message: Message, context: Context) -> Message:
        torch.manual_seed(0)
        app: ClientApp = importlib.import_module("flower_app.client_app").app
        return app(
            message,
            Context(
                context.run_id, context.node_id, context.node_config, context.state, dict(CONFIG)
            ),
        )


def test_exactly_three_lines_differ_from_the_stock_app() -> None:
    text = (APP / "flower_app" / "server_app.py").read_text()
    lines = [line for line in text.splitlines() if "disinherit" in line or "lineage" in line]
    assert [line.rpartition("  # ")[2] for line in lines] == ["(1)", "(2)", "(3)"]
    assert "disinherit" not in (APP / "flower_app" / "task.py").read_text()


@pytest.mark.slow
def test_the_app_records_its_graph_and_serves_a_request(
    tmp_path: Path, database: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_APP_MODELS", str(tmp_path))
    if database is not None:
        monkeypatch.setenv("FLOWER_APP_DATABASE", database)
    paths = [str(APP), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(APP))
    server_app = importlib.import_module("flower_app.server_app")
    serving = importlib.import_module("flower_app.serving")

    def main(grid: Grid) -> Any:
        torch.manual_seed(0)  # the stock app draws its weights and batches: some runs learn less
        context = Context(grid.run.run_id, 0, {}, RecordDict(), dict(CONFIG))
        server_app.app(grid, context)
        return serving.forget(grid, "forget-3", DIGIT)

    try:
        result = simulate(main, Configured(), 2, "cpu")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "flower_app"]:
            del sys.modules[name]

    store = CoordinatorStore(database or tmp_path / "lineage.db")
    graph = store.graph()
    store.close()
    trained = [m for m in graph.models() if "~" not in m.id]
    project = trained[0].id.removesuffix(".r0")
    assert project.startswith("run-")
    owners = sorted({m.owner for m in trained} - {"server"})
    updates = [[f"{project}.r{r}.{owner}" for owner in owners] for r in (1, 2)]
    assert len(owners) == 2
    assert sorted(m.id for m in trained) == sorted(
        [f"{project}.r{r}" for r in range(3)] + updates[0] + updates[1]
    )
    for r in (1, 2):
        edges = graph.parents(f"{project}.r{r}")
        assert sorted(edge.parent for edge in edges) == updates[r - 1]
        assert {edge.kind for edge in edges} == {InheritanceKind.FEDERATED}
        assert sum(edge.weight for edge in edges) == pytest.approx(1)

    affected = {m.id for m in trained} - {f"{project}.r0"}
    assert result.tasks.keys() == affected
    assert {task.reason for task in result.tasks.values()} == {""}
    assert {task.state for task in result.tasks.values()} == {TaskState.VERIFIED}
    stores = {name: ModelStore(tmp_path / name, name) for name in ["server", *owners]}
    for model in affected:
        owner = graph.model(model).owner
        before = accuracies(serving, stores[owner], model)
        after = accuracies(serving, stores[owner], result.tasks[model].result.successor.id)
        assert before[0] > 0.7
        assert after[0] < 0.05
        assert after[1] > before[1] - 0.1
    for owned in stores.values():
        owned.close()


def test_a_node_leaves_and_the_others_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_APP_MODELS", str(tmp_path))
    monkeypatch.delenv("FLOWER_APP_DATABASE", raising=False)
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.setattr(DirectGrid, "run", SimpleNamespace(run_id=5))
    grid = DirectGrid(Configured(), 3)
    server_app = importlib.import_module("flower_app.server_app")
    serving = importlib.import_module("flower_app.serving")
    torch.manual_seed(0)
    try:
        server_app.app(grid, Context(5, 0, {}, RecordDict(), dict(CONFIG)))
        result = serving.forget_node(grid, "leaves", 3, 1, 0.1)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "flower_app"]:
            del sys.modules[name]
    store = CoordinatorStore(tmp_path / "lineage.db")
    graph, tasks = store.graph(), store.tasks("leaves")
    store.close()
    assert {task.state for task in tasks.values()} <= {
        TaskState.VERIFIED,
        TaskState.EXEMPT,
        TaskState.INEFFECTIVE,
    }
    assert tasks["run-5.r2"].successor is not None
    last = [graph.model(edge.parent).owner for edge in graph.parents("run-5.r3")]
    assert sorted(last) == ["node-1", "node-2"]
    network = serving.Net()
    network.load_state_dict(result.arrays.to_torch_state_dict())
    ((inputs, targets),) = serving.server_data()[1]
    assert (network(inputs).argmax(1) == targets).double().mean() > 0.8


def accuracies(serving: Any, store: ModelStore, model: str) -> tuple[float, float]:
    """Accuracy on the digit to forget and on the others, on the test data; as the digest says."""
    weights = store.weights(model)
    assert weights_digest(weights) == store.record(model).digest
    network = serving.Net()
    network.load_state_dict(weights)
    ((inputs, targets),) = serving.server_data()[1]
    right = network(inputs).argmax(1) == targets
    forgotten = targets == int(DIGIT)
    return right[forgotten].double().mean().item(), right[~forgotten].double().mean().item()
