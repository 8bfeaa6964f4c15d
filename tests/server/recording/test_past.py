"""Federations that continue from stored versions, and late or partial updates."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg

from disinherit.common.errors import GraphError, StoreError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.recording.flower_updates import tensors
from disinherit.server.recording.recorder import CREATED_KEY, MODEL_KEY, LineageRecorder
from disinherit.server.store.registering import Announced
from disinherit.server.store.store import CoordinatorStore
from tests.support import flower_rounds as rounds
from tests.support.flower_rounds import CallingGrid, client, initial_arrays

UNLEARNED = InheritanceKind.UNLEARNED


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(tmp_path / "lineage.db")
    yield store
    store.close()


def federate(
    store: CoordinatorStore,
    start: ArrayRecord,
    *,
    nodes: Iterable[int] = (1, 2),
    call: rounds.Client = client,
    **options: Any,
) -> ArrayRecord:
    """Run two rounds and return the last global arrays."""
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    recorder = LineageRecorder(store, **options)
    recorder.attach(strategy)
    random.seed(0)
    result = strategy.start(CallingGrid(nodes, call), start, num_rounds=2)
    assert recorder.errors == []
    return result.arrays


def parents(store: CoordinatorStore, model: str) -> list[str]:
    return [edge.parent for edge in store.graph().parents(model)]


def other_arrays() -> ArrayRecord:
    return ArrayRecord([array.numpy() + np.float32(7) for array in initial_arrays().values()])


def test_a_run_from_saved_weights_descends_from_their_version(
    store: CoordinatorStore,
) -> None:
    saved = federate(store, initial_arrays(), project="monday")
    federate(store, saved, project="tuesday", nodes=[2, 3])
    assert parents(store, "tuesday.r0") == ["monday.r2"]
    assert "tuesday.r2" in store.graph().affected(["monday.r1.node-1"])


def test_the_last_version_with_the_same_weights_is_the_parent(
    store: CoordinatorStore,
) -> None:
    # With a single node, the aggregate is the update.
    saved = federate(store, initial_arrays(), project="monday", nodes=[1])
    digests = {m.id: m.digest for m in store.graph().models()}
    assert digests["monday.r2"] == digests["monday.r2.node-1"]
    copy = replace(store.records(["monday.r2"])["monday.r2"], id="copy", owner="elsewhere")
    store.add_model(copy)
    federate(store, saved, project="tuesday")
    assert parents(store, "tuesday.r0") == ["copy", "monday.r2"]


def test_a_recorded_project_is_continued(store: CoordinatorStore) -> None:
    saved = federate(store, initial_arrays(), project="ward")
    federate(store, saved, project="ward", nodes=[2, 3])
    ids = {m.id for m in store.graph().models()}
    assert {f"ward.r{number}" for number in range(5)} <= ids
    assert {"ward.r3.node-2", "ward.r3.node-3"} == {id for id in ids if id.startswith("ward.r3.")}
    assert parents(store, "ward.r3.node-2") == ["ward.r2"]
    assert "ward.r4" in store.graph().affected(["ward.r1.node-1"])


def test_a_project_continues_from_an_earlier_round_too(store: CoordinatorStore) -> None:
    states: dict[str, ArrayRecord] = {}

    def keep(record: ModelRecord, weights: Any) -> None:
        states[record.id] = ArrayRecord({k: v.clone() for k, v in weights.items()})

    federate(store, initial_arrays(), project="ward", keep=keep)
    federate(store, states["ward.r1"], project="ward", nodes=[3])
    assert parents(store, "ward.r3.node-3") == ["ward.r1"]


def test_a_project_with_unknown_start_weights_derives_from_its_last_round(
    store: CoordinatorStore,
) -> None:
    federate(store, initial_arrays(), project="ward")
    federate(store, other_arrays(), project="ward")
    assert parents(store, "ward.r2-2") == ["ward.r2"]
    assert parents(store, "ward.r3.node-1") == ["ward.r2-2"]


def test_a_project_started_from_a_successor_descends_from_it_alone(
    store: CoordinatorStore,
) -> None:
    federate(store, initial_arrays(), project="ward")
    last = store.records(["ward.r2"])["ward.r2"]
    start = other_arrays()
    digest = _digest(start)
    made = replace(last, id="ward.r2~q", digest=digest, created_us=last.created_us + 1)
    store.add_model(made, [Inheritance("ward.r2", "ward.r2~q", UNLEARNED)])
    federate(store, start, project="ward")
    assert parents(store, "ward.r2-2") == ["ward.r2~q"]
    assert "ward.r4" not in store.graph().affected(["ward.r1.node-1"], cleansed=["ward.r2~q"])


def _digest(arrays: ArrayRecord) -> str:
    return weights_digest(tensors(arrays))


def test_a_changed_start_has_the_given_parents(store: CoordinatorStore) -> None:
    federate(store, initial_arrays(), project="monday")
    federate(store, other_arrays(), project="tuesday", parent="monday.r2")
    assert parents(store, "tuesday.r0") == ["monday.r2"]
    with pytest.raises(GraphError, match="recorded versions as parents, but got 'sunday.r2'"):
        LineageRecorder(store, parent=["monday.r2", "sunday.r2"])


def test_a_failing_store_is_recorded_and_does_not_stop_training(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the database is locked")

    expected = rounds.run(FedAvg())
    for name in ("ids_from", "with_weights", "announce"):
        monkeypatch.setattr(CoordinatorStore, name, fail)
    recorder = LineageRecorder(store, project="p", announce=True)
    assert rounds.run(recorder.attach(FedAvg())) == expected
    assert all("the database is locked" in error for error in recorder.errors)
    assert {"p.r0", "p.r3"} <= {m.id for m in store.graph().models()}


# --- what nodes keep


def announced(message: Message) -> tuple[str, int]:
    (config,) = cast(list[ConfigRecord], list(message.content.config_records.values()))
    return str(config[MODEL_KEY]), int(str(config[CREATED_KEY]))


def kept_by(found: dict[str, int], answers: Callable[[str], bool]) -> rounds.Client:
    def call(message: Message) -> Any:
        if message.metadata.message_type != "train":
            return client(message)
        id, created = announced(message)
        found[id] = created
        return client(message) if answers(id) else None

    return call


def held(id: str, created_us: int, owner: str = "node-2") -> ModelRecord:
    """An owner's own model, of another architecture than its update."""
    return ModelRecord(id, owner, "ab", ("0", "1", "2"), "cd", created_us)


def test_a_late_update_keeps_its_parent(store: CoordinatorStore) -> None:
    found: dict[str, int] = {}
    call = kept_by(found, lambda id: id != "fed.r2.node-2")
    federate(store, initial_arrays(), project="fed", announce=True, call=call)
    assert store.records(["fed.r2.node-2"]) == {}

    store.add_model(held("fed.r2.node-2", found["fed.r2.node-2"]))

    assert parents(store, "fed.r2.node-2") == ["fed.r1"]
    assert "fed.r2.node-2" in store.graph().affected(["fed.r1.node-1"])


def test_a_node_registers_its_own_version_once(store: CoordinatorStore) -> None:
    found: dict[str, int] = {}
    federate(
        store,
        initial_arrays(),
        project="fed",
        announce=True,
        call=kept_by(found, lambda _: True),
    )
    id = "fed.r1.node-2"
    edges = store.graph().parents(id)
    mine = held(id, found[id])

    for other in (
        replace(mine, owner="node-1"),
        replace(mine, labels=("a", "b", "c")),
        replace(mine, created_us=mine.created_us + 1),
    ):
        with pytest.raises(GraphError):
            store.add_model(other)
    store.add_model(mine)
    assert store.records([id])[id].digest == "cd"
    assert store.with_weights("cd") == [mine]
    assert store.graph().parents(id) == edges
    assert id in parents(store, "fed.r1")

    with pytest.raises(GraphError, match="digest of model 'fed.r1.node-2' to stay 'cd'"):
        store.add_model(replace(mine, digest="ef"))


def test_an_announcement_adds_no_edge_for_another_owner(store: CoordinatorStore) -> None:
    store.add_model(ModelRecord("start", "server", "ab", ("0", "1", "2"), "aa", 1))
    store.announce([Announced("a", "node-1", "start"), Announced("b", "node-2", "gone")])
    store.add_model(held("a", 5, "node-2"))
    store.add_model(held("b", 6))
    assert parents(store, "a") == parents(store, "b") == []
