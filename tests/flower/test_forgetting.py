"""Requests to forget in a Flower app that has trained: classes, samples, a node that leaves."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.flower_app import NAME, AppGrid, context_of, example_app
from tests.support.pages import texts

from disinherit.common.errors import CampaignError, RequestError  # isort: skip
from disinherit.flower import forget  # isort: skip
from disinherit.flower.forget_app import result_lines  # isort: skip
from disinherit.server.states import TaskState  # isort: skip
from disinherit.server.store.store import CoordinatorStore  # isort: skip
from disinherit.v1 import unlearning_pb2 as pb  # isort: skip

LAST = "run-5.r2"


class Trained:
    """The example app, which has trained for two rounds on three nodes."""

    def __init__(self, folder: Path, load: Any) -> None:
        self.folder = folder
        self.load = load
        self.grid = AppGrid(load("flower_app.client_app").app, 3)

    def train(self, run: int = 5) -> None:
        grid = AppGrid(self.load("flower_app.client_app").app, 3, run)
        self.load("flower_app.server_app").app(grid, context_of())

    def forget(self, **what: Any) -> Any:
        return forget(self.grid, context_of(), **what)

    def final(self) -> dict[str, Any]:
        path = self.folder / NAME / "server" / "final_model.pt"
        state: dict[str, Any] = torch.load(path)
        return state

    def accuracy(self, state: dict[str, Any], digit: int) -> float:
        task = self.load("flower_app.task")
        network = task.Net()
        network.load_state_dict(state)
        inputs, targets = map(torch.cat, zip(*task.load_centralized_dataset(), strict=True))
        right: torch.Tensor = network(inputs).argmax(1)[targets == digit] == digit
        return right.double().mean().item()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "models"
    with example_app(folder) as load:
        Trained(folder, load).train()
    return folder


@pytest.fixture
def trained(once: Path, tmp_path: Path) -> Iterator[Trained]:
    folder = tmp_path / "models"
    shutil.copytree(once, folder)
    with example_app(folder) as load:
        yield Trained(folder, load)


def states(result: Any) -> dict[str, TaskState]:
    return {model: task.state for model, task in result.tasks.items()}


def test_a_class_is_forgotten_in_all_that_descends_from_it(trained: Trained) -> None:
    before = torch.load(trained.folder / "final_model.pt")
    assert trained.accuracy(before, 3) > 0.6
    result = trained.forget(classes=["3"], reason="asked")
    assert result.outcome == "complete"
    owners = {task.owner for task in result.tasks.values()}
    assert owners == {"node-0", "node-1", "node-2", "server"}
    assert len(result.tasks) == 8
    assert set(states(result).values()) == {TaskState.VERIFIED}
    last = result.tasks[LAST].result
    assert last is not None
    assert last.forget.source == "evaluation"
    assert last.forget.after == 0
    assert trained.accuracy(trained.final(), 3) == 0
    assert trained.accuracy(trained.final(), 4) > 0.7
    first, *rest = result_lines(result)
    assert first == f"request {result.request_id}: complete, 8 of 8 models settled, 8 changed"
    assert len(rest) == 8
    assert "forget" in rest[-1]
    again = trained.forget(classes=["3"])
    assert (again.request_id, again.outcome) == (result.request_id, "unchanged")


def test_the_call_on_the_page(trained: Trained) -> None:
    (text,) = texts("docs/flower.md", "python")
    space: dict[str, Any] = {"grid": trained.grid, "context": context_of()}
    exec(text, space)
    assert space["result"].outcome == "complete"


def test_samples_are_taken_out_by_training_again_without_them(trained: Trained) -> None:
    ids = range(25)
    result = trained.forget(samples={"node-0": ids})
    first = result.tasks["run-5.r1.node-0"].result
    assert first is not None
    assert (first.remedy, first.deltas[0].root_method) == (pb.REMEDY_REPLAYED, "replay")
    assert first.forget.samples == 25
    assert set(result.tasks) == {
        "run-5.r1.node-0",
        "run-5.r1",
        "run-5.r2.node-0",
        "run-5.r2.node-1",
        "run-5.r2.node-2",
        LAST,
    }
    again = trained.forget(samples={"node-0": [str(id) for id in reversed(ids)]})
    assert again.request_id == result.request_id
    assert again.changed == ()


def test_a_node_leaves_and_takes_all_with_it(trained: Trained) -> None:
    result = trained.forget(client="node-1")
    assert result.outcome == "complete"
    exempt = [model for model, state in states(result).items() if state is TaskState.EXEMPT]
    assert exempt == ["run-5.r1.node-1", "run-5.r2.node-1"]
    assert result.tasks[LAST].state is TaskState.VERIFIED


def test_one_request_after_another(trained: Trained) -> None:
    assert trained.forget(classes=["3"]).outcome == "complete"
    assert trained.forget(classes=["5"]).outcome == "complete"
    result = trained.forget(client="node-2")
    assert result.outcome == "complete"
    state = trained.final()
    assert trained.accuracy(state, 3) == trained.accuracy(state, 5) == 0


def test_a_node_that_was_away_is_asked_when_it_comes_back(trained: Trained) -> None:
    trained.grid.away = {2}
    result = trained.forget(classes=["3"])
    assert result.outcome == "partial"
    waiting = {task.owner for task in result.tasks.values() if not task.state.settled}
    assert "node-1" in waiting
    trained.grid.away = set()
    result = trained.forget(classes=["3"])
    assert result.outcome == "complete"


def test_a_later_run_goes_on_with_the_new_weights(trained: Trained, tmp_path: Path) -> None:
    trained.forget(classes=["3"])
    trained.train(run=6)
    store = CoordinatorStore(trained.folder / NAME / "server" / "lineage.db")
    graph = store.graph()
    store.close()
    assert {"run-6.r0", "run-6.r2"} <= {record.id for record in graph.models()}
    result = trained.forget(classes=["3"])
    assert result.outcome == "complete"
    assert {f"run-6.r{number}" for number in (1, 2)} <= {*result.changed}


def test_wrong_requests_are_refused_in_one_line(trained: Trained) -> None:
    with pytest.raises(RequestError, match="either classes, samples or a client.*got none"):
        trained.forget()
    with pytest.raises(RequestError, match="got classes and client"):
        trained.forget(classes=["3"], client="node-1")
    with pytest.raises(RequestError, match=r"Write \['3'\]"):
        trained.forget(classes="3")
    with pytest.raises(RequestError, match=r"\(0, 1, .* 9\), but got '33'"):
        trained.forget(classes=["33"])
    with pytest.raises(RequestError, match=r"\(node-0, node-1, node-2\), but got 'node-9'"):
        trained.forget(client="node-9")
    with pytest.raises(RequestError, match="but got 'nodes'"):
        trained.forget(samples={"nodes": [1]})
    with pytest.raises(RequestError, match="ids of samples of 'node-0' to forget, but got none"):
        trained.forget(samples={"node-0": []})
    with pytest.raises(CampaignError, match="1 of 2 are of none. An id is a position") as raised:
        trained.forget(samples={"node-0": [0, 100_000]})
    assert "\n" not in str(raised.value)
    trained.grid.away = {1}
    with pytest.raises(CampaignError, match="node of 'node-0' to be connected"):
        trained.forget(samples={"node-0": [0]})
    trained.grid.away = {1, 2, 3}
    with pytest.raises(CampaignError, match="none said which owner it is"):
        trained.forget(classes=["3"])


def test_nothing_is_forgotten_where_nothing_was_recorded(tmp_path: Path) -> None:
    with example_app(tmp_path / "models") as load:
        trained = Trained(tmp_path / "models", load)
        with pytest.raises(RequestError, match="Make its strategy unlearnable and train first"):
            trained.forget(classes=["3"])
