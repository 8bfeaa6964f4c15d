"""Requests to forget in a Flower app that has trained: classes, samples, a node that leaves."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.command_line import Capture, as_json
from tests.support.flower_app import NAME, AppGrid, context_of, example_app
from tests.support.pages import texts

from disinherit.cli.main import run  # isort: skip
from disinherit.client.store.store import ModelStore  # isort: skip
from disinherit.common.errors import CampaignError, RequestError  # isort: skip
from disinherit.common.graph.records import ModelStatus  # isort: skip
from disinherit.flower import forget, result_lines  # isort: skip
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

    def train(self, run: int = 5, nodes: int = 3) -> None:
        grid = AppGrid(self.load("flower_app.client_app").app, nodes, run)
        self.load("flower_app.server_app").app(grid, context_of())

    def forget(self, **what: Any) -> Any:
        return forget(self.grid, context_of(), **what)

    def final(self) -> dict[str, Any]:
        path = self.folder / NAME / "server" / "final_model.pt"
        state: dict[str, Any] = torch.load(path)
        return state

    def weights(self, model: str, result: Any) -> dict[str, Any]:
        """What became of a version."""
        made = result.tasks[model].successor
        store = ModelStore(self.folder / NAME / made.owner / "models", made.owner)
        try:
            return store.weights(made.id)
        finally:
            store.close()

    def trained_by_hand(self, update: str, start: dict[str, Any]) -> dict[str, Any]:
        """What the app's own train function gives from a start, with the random numbers of then."""
        task = self.load("flower_app.task")
        owner = update.rpartition(".")[2]
        kept = json.loads((self.folder / NAME / owner / "trainings" / f"{update}.json").read_text())
        torch.set_rng_state(torch.tensor([*bytes.fromhex(kept["states"]["torch"])]).byte())
        network = task.Net()
        network.load_state_dict(start)
        # The state is that of before the app made its network.
        loader, _ = task.load_data(int(owner[-1]), 3, 32)
        task.train(network, loader, 3, 0.1, torch.device("cpu"))
        state: dict[str, Any] = network.state_dict()
        return state

    def accuracy(self, state: dict[str, Any], digit: int) -> float:
        task = self.load("flower_app.task")
        network = task.Net()
        network.load_state_dict(state)
        inputs, targets = map(torch.cat, zip(*task.load_centralized_dataset(), strict=True))
        right: torch.Tensor = network(inputs).argmax(1)[targets == digit] == digit
        return right.double().mean().item()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {*one} == {*other} and all(torch.equal(one[name], other[name]) for name in one)


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


UPDATE = "run-5.r2.node-1"


def test_samples_are_gone_from_every_later_round(trained: Trained) -> None:
    ids, said = range(25), list[str]()
    result = trained.forget(samples={"node-0": ids}, say=said.append)
    assert result.outcome == "complete"
    assert said == [
        "training 1 updates again without the samples",
        "training 3 updates again without the samples",
    ]
    found = {model: task.result for model, task in result.tasks.items()}
    assert {model: pb.Remedy.Name(one.remedy) for model, one in found.items() if one} == {
        "run-5.r1.node-0": "REMEDY_REPLAYED",
        "run-5.r1": "REMEDY_REBUILT",
        "run-5.r2.node-0": "REMEDY_REBUILT",
        UPDATE: "REMEDY_REBUILT",
        "run-5.r2.node-2": "REMEDY_REBUILT",
        LAST: "REMEDY_REBUILT",
    }
    for model in ("run-5.r1.node-0", "run-5.r2.node-0"):
        one = found[model]
        assert one is not None
        assert (one.forget.samples, one.forget.source) == (25, "evaluation")
    new = {model: trained.weights(model, result) for model in found}
    # The update of another node is what its own training gives from the new global model.
    assert same(new[UPDATE], trained.trained_by_hand(UPDATE, new["run-5.r1"]))
    # The last global model is the average of what became of its updates.
    for name, value in new[LAST].items():
        parts = [new[f"run-5.r2.node-{n}"][name] for n in range(3)]
        assert torch.allclose(value, torch.stack(parts).mean(0), atol=1e-6)
    assert same(trained.final(), new[LAST])
    again = trained.forget(samples={"node-0": [str(id) for id in reversed(ids)]})
    assert (again.request_id, again.outcome) == (result.request_id, "unchanged")
    # What was forgotten stays left out when more is.
    more = trained.forget(samples={"node-0": [30], "node-2": [7]})
    assert more.outcome == "complete"
    assert {one.remedy for task in more.tasks.values() if (one := task.result)} <= {
        pb.REMEDY_REPLAYED,
        pb.REMEDY_REBUILT,
    }


def test_a_change_is_handed_down_where_that_is_asked(trained: Trained) -> None:
    result = trained.forget(samples={"node-0": range(25)}, hand_down=True)
    first, later = (result.tasks[f"run-5.r{number}.node-0"].result for number in (1, 2))
    assert first is not None
    assert later is not None
    assert (first.remedy, first.deltas[0].root_method) == (pb.REMEDY_REPLAYED, "replay")
    assert later.remedy == pb.REMEDY_APPROXIMATED
    assert result.changed


def test_rounds_are_not_repeated_in_vain(trained: Trained) -> None:
    trained.grid.away = {2}
    with pytest.raises(CampaignError, match=r"'node-1' to be connected.*\(--hand-down\)"):
        trained.forget(samples={"node-0": [1, 2]})
    trained.grid.away = set()
    trained.forget(classes=["3"])
    said: list[str] = []
    trained.forget(samples={"node-0": [1, 2]}, say=said.append)
    (line,) = said
    assert line.startswith("the change is handed down to 6 models, which are not made again")
    assert "r1.node-0~" in line
    # What was trained afterwards, from the start, is made again.
    trained.train(run=6)
    result = trained.forget(samples={"node-0": [3]})
    later = ("run-6.r1.node-0", "run-6.r1", "run-6.r2.node-1", "run-6.r2")
    assert {result.tasks[one].state for one in later} == {TaskState.VERIFIED}


def test_a_repetition_is_applied_when_nodes_come_back(trained: Trained) -> None:
    exchange = trained.grid.push_messages

    def leaving(messages: Any) -> Any:
        sent = list(messages)
        if any(one.metadata.message_type == "train.unlearn" for one in sent):
            trained.grid.away = {3}
        return exchange([m for m in sent if m.metadata.dst_node_id not in trained.grid.away])

    trained.grid.push_messages = leaving  # type: ignore[method-assign]
    assert trained.forget(samples={"node-0": [1, 2]}).outcome == "partial"
    trained.grid.push_messages = exchange  # type: ignore[method-assign]
    trained.grid.away = set()
    said: list[str] = []
    result = trained.forget(samples={"node-0": [1, 2]}, say=said.append)
    assert (result.outcome, said) == ("complete", [])


def test_positions_are_those_in_the_latest_data(
    trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """Node 0 has every second image now, and had every third one."""
    trained.train(run=6, nodes=2)
    trained.grid = AppGrid(trained.load("flower_app.client_app").app, 2, 6)
    result = trained.forget(samples={"node-0": [1]})
    assert {model for model in result.tasks if model.endswith("node-0")} == {
        "run-6.r1.node-0",
        "run-6.r2.node-0",
    }
    (said,) = (one.getMessage() for one in caplog.records if "where positions" in one.message)
    assert said.startswith("2 updates of node-0 were trained on other data")
    assert said.endswith("stays: run-5.r1.node-0, run-5.r2.node-0")


def test_a_node_leaves_and_takes_all_with_it(trained: Trained, capsys: Capture) -> None:
    result = trained.forget(client="node-1")
    assert result.outcome == "complete"
    exempt = [model for model, state in states(result).items() if state is TaskState.EXEMPT]
    assert exempt == ["run-5.r1.node-1", "run-5.r2.node-1"]
    assert result.tasks[LAST].state is TaskState.VERIFIED
    models = trained.folder / NAME / "node-1"
    assert models.is_dir()
    assert run(["flower", "retire", NAME, "node-1", "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "lineage.db: run-5.r1.node-1, run-5.r2.node-1\n" in printed
    assert not models.exists()
    store = CoordinatorStore(trained.folder / NAME / "server" / "lineage.db")
    log = b"".join(store.audit_lines())
    assert {store.graph().model(one).status for one in exempt} == {ModelStatus.RETIRED}
    store.close()
    assert log.count(b"model_retired") == 2
    assert run(["flower", "retire", NAME, "node-1"]) == 0, "nothing to delete, nothing asked"
    assert "none, all were before" in capsys.readouterr().out
    again = as_json(capsys, "flower", "retire", NAME, "node-1")
    assert (again["retired"], again["deleted"]) == ([], None)
    assert trained.forget(client="node-1").outcome == "unchanged"


def test_models_of_owners_that_stay_are_not_retired(trained: Trained, capsys: Capture) -> None:
    for words, reason in {
        (NAME, "node-0"): "there is none for 'node-0'",
        (NAME, "server"): "an owner that is a node",
        ("other", "node-0"): f"which has apps {NAME}. Run it where",
    }.items():
        assert run(["flower", "retire", *words, "--yes"]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
    assert (trained.folder / NAME / "node-0").is_dir()


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
        with pytest.raises(RequestError, match="has apps none. Train first, with a strategy of"):
            trained.forget(classes=["3"])
    assert not (tmp_path / "models" / NAME).exists()
