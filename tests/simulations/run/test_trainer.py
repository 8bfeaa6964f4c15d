"""A fleet over Flower messages: order, starts, and what is left out of each training."""

import json
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message

from disinherit.common.errors import CampaignError
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.flower.owners import NamedOwners
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.run.trainer import SimulatedFleet
from disinherit.simulations.run.training import build_simulation_app
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights, average
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.scenarios import FEDERATED
from disinherit.simulations.scenario.settings import Settings
from tests.support import direct_grid
from tests.support.direct_grid import DirectGrid

TWO_ROOTS = Settings(
    "digits",
    {"r1": ("3",), "r2": ("5",)},
    network="mlp",
    clients=3,
    limit=10,
    epochs=1,
)

FORGETTING = Forgetting(TWO_ROOTS, label_spaces(FEDERATED, load_dataset("digits")))

AFFECTED = ("r1", "r2", "r3", "r4", "r6")


def fleet_in(
    folder: Path, interfere: direct_grid.Interfere = lambda _: None
) -> tuple[SimulatedFleet, DirectGrid]:
    app = build_simulation_app(TWO_ROOTS, folder)
    grid = DirectGrid(app, TWO_ROOTS.clients, interfere)
    return SimulatedFleet(TWO_ROOTS, grid, NamedOwners(grid, 3), FORGETTING), grid


def order_of(message: Message) -> tuple[str, set[str], bool]:
    """The model a message orders to train, the classes it leaves out, and whether it is kept."""
    fit = message.content["fit"]
    assert isinstance(fit, ConfigRecord)
    return str(fit["model"]), set(json.loads(str(fit["without"]))), bool(fit["keep"])


def start_of(message: Message) -> Weights | None:
    record = message.content.get("start")
    return dict(record.to_torch_state_dict()) if isinstance(record, ArrayRecord) else None


def fits(grid: DirectGrid) -> list[Message]:
    return [m for m in grid.pushed if m.metadata.message_type == "train.fit"]


def nothing(_: object, __: object = None) -> None:
    """Record nothing, say nothing."""


def test_a_model_learns_what_enters_at_it_or_above_it_and_nothing_else(tmp_path: Path) -> None:
    fleet, grid = fleet_in(tmp_path)
    fleet.train(nothing, nothing)
    without = {model: names for model, names, _ in map(order_of, fits(grid))}
    assert without == {
        "d": {"3", "5"},
        "s": {"3", "5"},
        "r1": {"5"},  # class 5 enters later, at r2
        "r2": set(),
        "r3": set(),
        "r4": set(),
        "r6": set(),
    }


def test_the_reference_never_meets_a_class_to_forget(tmp_path: Path) -> None:
    fleet, grid = fleet_in(tmp_path)
    fleet.train(nothing, nothing)
    grid.pushed.clear()
    retrained, seconds = fleet.replay(AFFECTED, nothing)
    assert set(retrained) == set(AFFECTED)
    assert seconds > 0
    orders = list(map(order_of, fits(grid)))
    assert {model for model, _, _ in orders} == set(AFFECTED)
    assert all(names == {"3", "5"} and not keep for _, names, keep in orders)


def test_a_replay_starts_from_retrained_parents_and_the_untouched_as_they_are(
    tmp_path: Path,
) -> None:
    fleet, grid = fleet_in(tmp_path)
    fleet.train(nothing, nothing)
    trained = {model: weights_digest(weights) for model, weights in fleet.weights.items()}
    grid.pushed.clear()
    retrained, _ = fleet.replay(AFFECTED, nothing)
    starts = {order_of(message)[0]: start_of(message) for message in fits(grid)}
    now = {**fleet.weights, **retrained}
    for derivation in FEDERATED.derivations:
        if derivation.id in AFFECTED:
            parents = [now[p] for p in derivation.parents]
            start, expected = starts[derivation.id], average(parents, [1.0] * len(parents))
            assert start is not None
            assert all(torch.equal(start[name], expected[name]) for name in expected)
    assert {m: weights_digest(w) for m, w in fleet.weights.items()} == trained
    assert all(weights_digest(retrained[m]) != trained[m] for m in AFFECTED)


def test_every_model_is_recorded_as_it_comes_with_its_inheritance(tmp_path: Path) -> None:
    events: list[str] = []
    edges: dict[str, set[str]] = {}

    def interfere(message: Message) -> None:
        if message.metadata.message_type == "train.fit":
            events.append(f"train {order_of(message)[0]}")

    def record(model: ModelRecord, inheritance: list[Inheritance]) -> None:
        events.append(f"record {model.id}")
        edges[model.id] = {edge.parent for edge in inheritance}

    fleet, _ = fleet_in(tmp_path, interfere)
    assert fleet.train(record, lambda model: events.append(f"say {model}")) > 0
    assert edges == {d.id: set(d.parents) for d in FEDERATED.derivations}
    for derivation in FEDERATED.derivations:
        recorded = events.index(f"record {derivation.id}")
        assert events[recorded + 1] == f"say {derivation.id}"
        assert events.index(f"train {derivation.id}") < recorded
        assert all(
            events.index(f"record {p}") < events.index(f"train {derivation.id}")
            for p in derivation.parents
        )


def test_models_are_trained_by_their_owners(tmp_path: Path) -> None:
    fleet, grid = fleet_in(tmp_path)
    owners: dict[str, str] = {}
    fleet.train(lambda record, _: owners.update({record.id: record.owner}), nothing)
    assert owners == {m: f"owner-{i % 3}" for i, m in enumerate(FEDERATED.ids)}
    nodes = {order_of(m)[0]: m.metadata.dst_node_id for m in fits(grid)}
    assert nodes == {m: i % 3 + 1 for i, m in enumerate(FEDERATED.ids)}


def test_a_model_that_cannot_be_trained_is_named_and_what_came_before_is_recorded(
    tmp_path: Path,
) -> None:
    def interfere(message: Message) -> None:
        if message.metadata.message_type == "train.fit" and order_of(message)[0] == "r2":
            raise MemoryError("no memory left")

    recorded: list[str] = []
    fleet, _ = fleet_in(tmp_path, interfere)
    with pytest.raises(CampaignError, match="'r2' to be trained, but: no memory left"):
        fleet.train(lambda record, _: recorded.append(record.id), nothing)
    assert recorded == ["d", "s", "r1"]


def test_an_owner_that_is_not_there_is_named(tmp_path: Path) -> None:
    def interfere(message: Message) -> None:
        if message.metadata.dst_node_id == 2:
            raise RuntimeError("no disk")

    fleet, _ = fleet_in(tmp_path, interfere)
    with pytest.raises(CampaignError, match="owner-1 to train model 's'"):
        fleet.train(nothing, nothing)
