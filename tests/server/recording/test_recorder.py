"""Lineage recorded by real Flower strategies, driven through their own training loop."""

import gc
import itertools
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedMedian, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import GraphError, InputError, LabelError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.graph.rules import computed_from
from disinherit.common.recipes.averages import average
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.recording.flower_updates import class_names, provenance_of, shares, tensors
from disinherit.server.recording.recorder import (
    CREATED_KEY,
    MODEL_KEY,
    LineageRecorder,
    node_name,
    record_lineage,
)
from disinherit.server.store.store import CoordinatorStore
from tests.support import flower_rounds as rounds
from tests.support.flower_rounds import (
    CallingGrid,
    client,
    examples,
    initial_arrays,
    run,
    train_reply,
)

FEDERATED, INCREMENTAL = InheritanceKind.FEDERATED, InheritanceKind.INCREMENTAL


class GraphSink:
    """A sink that is nothing but the graph and its rules."""

    def __init__(self) -> None:
        self.graph = InheritanceGraph()
        self.order: list[str] = []

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance]) -> None:
        self.graph.add(record, parents)
        self.order.append(record.id)


class BrokenSink(GraphSink):
    """Fails on some calls, numbered from 0."""

    def __init__(self, error: Exception, fails: Callable[[int], bool] = lambda _: True) -> None:
        super().__init__()
        self.error, self.fails, self.calls = error, fails, 0

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance]) -> None:
        self.calls += 1
        if self.fails(self.calls - 1):
            raise self.error
        super().add_model(record, parents)


STRATEGIES: dict[str, tuple[Callable[[], Strategy], bool]] = {
    "FedAvg": (FedAvg, True),
    "FedProx": (lambda: flower.FedProx(proximal_mu=0.1), True),
    "FedAvgM without momentum": (FedAvgM, True),
    "FedAvgM": (lambda: FedAvgM(server_momentum=0.9), False),
    "FedAdam": (flower.FedAdam, False),
    "FedAdagrad": (flower.FedAdagrad, False),
    "FedYogi": (flower.FedYogi, False),
    "FedMedian": (FedMedian, False),
    "FedTrimmedAvg": (flower.FedTrimmedAvg, False),
    "Krum": (flower.Krum, False),
    "MultiKrum": (lambda: flower.MultiKrum(num_nodes_to_select=2), False),
    "DP": (
        lambda: flower.DifferentialPrivacyServerSideFixedClipping(
            FedAvg(), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=3
        ),
        False,
    ),
}
"""Name -> how to make the strategy, and whether its aggregate is the weighted mean alone."""


def record(strategy: Strategy, **options: Any) -> tuple[GraphSink, LineageRecorder]:
    """Attach a recorder with a graph as its sink."""
    sink = GraphSink()
    recorder = LineageRecorder(sink, project="p", **options)
    assert recorder.attach(strategy) is strategy
    return sink, recorder


def edges(graph: InheritanceGraph, child: str) -> dict[str, tuple[InheritanceKind, float]]:
    return {edge.parent: (edge.kind, edge.weight) for edge in graph.parents(child)}


def torch_state(arrays: ArrayRecord) -> dict[str, Tensor]:
    return dict(arrays.to_torch_state_dict())


@pytest.mark.parametrize("name", STRATEGIES)
def test_training_is_bit_identical_and_every_round_is_recorded(name: str) -> None:
    make, mean = STRATEGIES[name]
    expected = run(make())
    strategy = make()
    sink, recorder = record(strategy)
    assert run(strategy) == expected
    assert recorder.errors == []
    graph = sink.graph
    graph.validate()
    updates = [f"p.r{r}.node-{n}" for r in (1, 2, 3) for n in (1, 2, 3)]
    assert {m.id for m in graph.models()} == {"p.r0", "p.r1", "p.r2", "p.r3", *updates}
    assert graph.parents("p.r0") == ()
    for r in (1, 2, 3):
        merged: dict[str, tuple[InheritanceKind, float]] = {
            f"p.r{r}.node-{n}": (FEDERATED, examples(n) / 60) for n in (1, 2, 3)
        }
        previous = {f"p.r{r - 1}": (INCREMENTAL, 1.0)}
        assert edges(graph, f"p.r{r}") == merged | ({} if mean else previous)
        assert all(edges(graph, update) == previous for update in merged)
    assert graph.affected(["p.r1.node-2"])[-1] == "p.r3"


@pytest.mark.parametrize("name", STRATEGIES)
def test_plain_averages_have_a_recipe_that_makes_them_bit_for_bit(name: str) -> None:
    make, mean = STRATEGIES[name]
    sink, _ = record(strategy := make())
    sent: dict[str, dict[str, Tensor]] = {}

    def seen(message: Message) -> RecordDict:
        content = client(message)
        for arrays in content.array_records.values():
            state = tensors(arrays)
            sent[weights_digest(state)] = state
        return content

    run(strategy, seen)
    for child in ("p.r1", "p.r2", "p.r3"):
        parents = computed_from(sink.graph.parents(child))
        assert bool(parents) == mean
        if parents:
            made = average((sent[sink.graph.model(e.parent).digest], e.weight) for e in parents)
            assert weights_digest(made) == sink.graph.model(child).digest


def test_records_describe_the_very_weights() -> None:
    seen: dict[str, dict[str, Tensor]] = {}

    def watched(message: Message) -> RecordDict:
        reply = client(message)
        if message.metadata.message_type == "train":
            config = cast(ConfigRecord, message.content["config"])
            name = f"p.r{config['server-round']!r}.node-{message.metadata.dst_node_id}"
            seen[name] = torch_state(cast(ArrayRecord, reply["arrays"]))
        return reply

    strategy = FedAvg()
    kept: dict[str, dict[str, Tensor]] = {}
    sink, _ = record(
        strategy, owner="hub", labels=["a", "b", "c"], keep=lambda r, w: kept.update({r.id: w})
    )
    last = run(strategy, watched, rounds=2)
    assert kept.keys() == {"p.r0", "p.r1", "p.r2"}
    for id, state in (seen | kept).items():
        model = sink.graph.model(id)
        assert model.digest == weights_digest(state)
        assert model.labels == ("a", "b", "c")
        assert model.owner == (id.split(".")[2] if id in seen else "hub")
        assert model.provenance is None
    assert {k: v.numpy().tobytes() for k, v in kept["p.r2"].items()} == last


def test_order_of_time_is_strict() -> None:
    sink, _ = record(strategy := FedAvg())
    run(strategy)
    times = [sink.graph.model(id).created_us for id in sink.order]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))


def test_recorded_times_increase_with_a_stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000_000, 0, -1000))
    monkeypatch.setattr("disinherit.server.recording.recorder.time.time_ns", lambda: next(clock))
    sink, recorder = record(strategy := FedAvg())
    run(strategy)
    assert recorder.errors == []
    times = [sink.graph.model(id).created_us for id in sink.order]
    assert times == list(range(times[0], times[0] + len(times)))


def test_an_update_that_equals_the_average_is_not_its_own_parent() -> None:
    def still(message: Message) -> RecordDict:
        reply = client(message)
        if "arrays" in reply:
            reply["arrays"] = ArrayRecord(dict(cast(ArrayRecord, message.content["arrays"])))
        return reply

    sink, recorder = record(strategy := FedAvg(1.0, 0.0, 1, min_available_nodes=1))
    run(strategy, still, nodes=[2], rounds=2)
    assert recorder.errors == []
    assert len({model.digest for model in sink.graph.models()}) == 1
    assert sink.order == ["p.r0", "p.r1.node-2", "p.r1", "p.r2.node-2", "p.r2"]


def test_failed_and_silent_owners_contribute_nothing() -> None:
    def partly(message: Message) -> RecordDict | Error | None:
        if message.metadata.message_type == "train":
            if message.metadata.dst_node_id == 1:
                return Error(code=2, reason="out of memory")
            if message.metadata.dst_node_id == 2:
                return None
        return client(message)

    sink, recorder = record(strategy := FedAvg())
    run(strategy, partly, rounds=1)
    assert recorder.errors == []
    assert sink.order == ["p.r0", "p.r1.node-3", "p.r1"]
    assert edges(sink.graph, "p.r1") == {"p.r1.node-3": (FEDERATED, 1.0)}


def test_after_a_failed_round_training_starts_from_the_same_version() -> None:
    def silent_first(message: Message) -> RecordDict | None:
        config = cast(ConfigRecord, message.content["config"])
        train = message.metadata.message_type == "train"
        return None if train and config["server-round"] == 1 else client(message)

    sink, recorder = record(strategy := FedAvg())
    run(strategy, silent_first, rounds=2)
    assert recorder.errors == []
    assert "p.r1" not in sink.graph
    assert edges(sink.graph, "p.r2.node-1") == {"p.r0": (INCREMENTAL, 1.0)}


def test_updates_are_recorded_even_if_the_strategy_then_refuses_them() -> None:
    def lopsided(message: Message) -> RecordDict:
        reply = client(message)
        if message.metadata.dst_node_id == 1:
            reply["metrics"] = MetricRecord({"something": 1})
        return reply

    sink, recorder = record(strategy := FedAvg())
    with pytest.raises(Exception, match="MetricRecords"):
        run(strategy, lopsided, rounds=1)
    assert len(sink.graph) == 4
    assert recorder.errors == []


def test_global_arrays_from_elsewhere_count_as_derived_from_the_last_aggregate() -> None:
    sink, recorder = record(strategy := FedAvg())
    run(strategy, rounds=1)
    run(strategy, rounds=1)
    assert recorder.errors == []
    assert sink.order[5:] == ["p.r0-2", *(f"p.r1.node-{n}-2" for n in (1, 2, 3)), "p.r1-2"]
    assert edges(sink.graph, "p.r0-2") == {"p.r1": (INCREMENTAL, 1.0)}


def test_only_training_is_wrapped_and_own_loops_and_attributes_stay() -> None:
    class Own(FedAvg):
        def __init__(self) -> None:
            super().__init__()
            self.rounds = 0

        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            self.rounds += 1
            return super().aggregate_train(server_round, replies)

    sink, _ = record(own := Own())
    run(own, rounds=2)
    assert own.rounds == 2
    assert vars(own).keys() - vars(Own()).keys() == {"configure_train", "aggregate_train"}
    assert edges(sink.graph, "p.r2")["p.r1"] == (INCREMENTAL, 1.0)  # not known to be a mere mean


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), GraphError("no"), KeyError()])
def test_a_broken_sink_logs_one_warning_and_does_not_stop_training(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(FedAvg())
    recorder = LineageRecorder(BrokenSink(error), project="p")
    with caplog.at_level(logging.WARNING, "disinherit"):
        assert run(recorder.attach(FedAvg())) == expected
    warnings = [r for r in caplog.records if r.name.startswith("disinherit")]
    assert len(warnings) == 1
    assert "lineage is incomplete" in warnings[0].getMessage()
    assert "p.r0" in warnings[0].getMessage()
    assert recorder.errors


def test_a_sink_that_recovers_gets_all_versions() -> None:
    whole, _ = record(strategy := FedAvg())
    run(strategy)
    sink = BrokenSink(OSError("busy"), lambda call: call % 3 != 0)
    recorder = LineageRecorder(sink, project="p")
    run(recorder.attach(FedAvg()))
    assert recorder.errors
    assert all("busy" in text for text in recorder.errors)
    while not recorder.flush():
        pass
    assert recorder.errors == []
    assert sink.order == whole.order
    sink.graph.validate()


def test_a_refused_update_is_left_out_and_later_ones_are_recorded() -> None:
    sink = BrokenSink(InputError("not this one"), lambda call: call == 1)
    recorder = LineageRecorder(sink, project="p")
    run(recorder.attach(FedAvg()), rounds=2)
    assert recorder.errors == ["p.r1.node-1 was refused: not this one"]
    assert edges(sink.graph, "p.r1").keys() == {"p.r0", "p.r1.node-2", "p.r1.node-3"}
    assert "p.r2" in sink.graph
    sink.graph.validate()


def test_after_a_refused_aggregate_the_next_round_has_the_known_parent() -> None:
    sink = BrokenSink(InputError("no"), lambda call: call == 4)  # p.r1
    recorder = LineageRecorder(sink, project="p")
    run(recorder.attach(FedAvg()), rounds=2)
    assert len(recorder.errors) == 1
    assert edges(sink.graph, "p.r1-2") == {"p.r0": (INCREMENTAL, 1.0)}
    assert edges(sink.graph, "p.r2.node-1") == {"p.r1-2": (INCREMENTAL, 1.0)}


def test_failing_callbacks_do_no_harm() -> None:
    def nobody(node: int) -> str:
        raise LookupError(node)

    def full(model: ModelRecord, weights: object) -> None:
        raise OSError("disk full")

    expected = run(FedAvg())
    sink, recorder = record(strategy := FedAvg(), owner_of=nobody, keep=full)
    assert run(strategy) == expected
    assert {"disk full" in text or "owner of node" in text for text in recorder.errors} == {True}
    assert sink.graph.model("p.r3.node-2").owner == "node-2"


def test_owners_are_named_by_the_caller() -> None:
    sink, recorder = record(strategy := FedAvg(), owner_of={1: "a", 2: "b", 3: "not a name"}.get)
    run(strategy, rounds=1)
    assert {m.owner for m in sink.graph.models()} == {"server", "a", "b", "node-3"}
    assert len(recorder.errors) == 1
    assert "not a name" in recorder.errors[0]


def test_without_a_project_ids_have_the_run() -> None:
    sink = GraphSink()
    run(record_lineage(FedAvg(), sink), rounds=1)
    assert sink.order[0] == f"run-{rounds.RUN}.r0"


@pytest.mark.parametrize("options", [{"project": "a/b"}, {"owner": ""}])
def test_a_bad_name_is_refused_before_training(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="name") as refused:
        record_lineage(FedAvg(), GraphSink(), **options)  # type: ignore[arg-type]
    assert refused.type is InputError


def test_a_model_without_a_head_needs_labels() -> None:
    def vector(message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            arrays = cast(ArrayRecord, message.content["arrays"])
            metrics = MetricRecord({"num-examples": 1})
            return RecordDict({"arrays": ArrayRecord(dict(arrays)), "metrics": metrics})
        return client(message)

    def start(strategy: Strategy) -> None:
        arrays = ArrayRecord([np.zeros(3, np.float32)])
        strategy.start(CallingGrid([1, 2], vector), arrays, num_rounds=1)

    sink, recorder = record(strategy := FedAvg())
    start(strategy)
    assert len(sink.graph) == 0
    assert "labels" in recorder.errors[0]
    sink, recorder = record(strategy := FedAvg(), labels=["x"])
    start(strategy)
    assert recorder.errors == []
    with pytest.raises(LabelError, match="labels"):
        class_names({"a": torch.zeros(2)})


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("info", ConfigRecord({"samples-per-class": [4, 0, 2], "dataset": "mine"}), "mine"),
        ("info", ConfigRecord({"samples-per-class": [4, 0, 2]}), ""),
        (
            "metrics",
            MetricRecord({"samples-per-class": [4, 0, 2], "num-examples": 6, "train_loss": 1.0}),
            "",
        ),
    ],
)
def test_provenance_comes_from_the_reply(
    name: str, entry: ConfigRecord | MetricRecord, expected: str
) -> None:
    def telling(message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            return train_reply(message, **{name: entry})
        return client(message)

    sink, recorder = record(strategy := FedAvg(), labels=["a", "b", "c"])
    run(strategy, telling, rounds=1)
    assert recorder.errors == []
    assert sink.graph.model("p.r1.node-1").provenance == Provenance(
        expected, {"a": 4, "b": 0, "c": 2}
    )
    assert sink.graph.model("p.r1").provenance is None


@pytest.mark.parametrize("counts", [[1, 2], [1.0, 2.0, 3.5], 7, [1, 2, -3]])
def test_provenance_that_makes_no_sense_is_unknown(counts: Any) -> None:
    reply = RecordDict({"m": MetricRecord({"samples-per-class": counts})})
    with pytest.raises(InputError, match=r"samples-per-class|sample count"):
        provenance_of(reply, ["a", "b", "c"])
    sink, recorder = record(strategy := FedAvg())
    run(
        strategy,
        lambda m: (
            train_reply(m, info=ConfigRecord({"samples-per-class": counts}))
            if m.metadata.message_type == "train"
            else client(m)
        ),
        rounds=1,
    )
    assert sink.graph.model("p.r1.node-1").provenance is None
    assert len(recorder.errors) == 3


def test_messages_are_the_strategys_own_unless_announced() -> None:
    strategy = FedAvg()
    record(strategy)
    grid = CallingGrid([1, 2, 3], client)
    strategy.start(grid, initial_arrays(), num_rounds=1)
    assert {tuple(cast(ConfigRecord, m.content["config"])) for m in grid.sent} == {
        ("server-round",)
    }


def test_an_announced_version_is_the_one_recorded(tmp_path: Path) -> None:
    announced: dict[str, int] = {}

    def listening(message: Message) -> RecordDict:
        if message.metadata.message_type == "train":
            config = cast(ConfigRecord, message.content["config"])
            assert config.keys() == {"server-round", MODEL_KEY, CREATED_KEY}
            announced[str(config[MODEL_KEY])] = int(str(config[CREATED_KEY]))
        return client(message)

    expected = run(FedAvg())
    store = ModelStore(tmp_path, "server")
    sink, recorder = record(strategy := FedAvg(), announce=True, keep=store.add)
    assert run(strategy, listening) == expected
    assert recorder.errors == []
    assert announced == {m.id: m.created_us for m in sink.graph.models() if m.owner != "server"}
    assert [r.id for r in store.records()] == ["p.r0", "p.r1", "p.r2", "p.r3"]
    assert all(sink.graph.model(r.id) == r for r in store.records())
    sink.graph.validate()
    store.close()


def test_no_arrays_outlive_their_round(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Tensor]] = []

    def watched(arrays: ArrayRecord) -> dict[str, Tensor]:
        state = tensors(arrays)
        alive.extend(map(weakref.ref, state.values()))
        return state

    monkeypatch.setattr("disinherit.server.recording.recorder.tensors", watched)
    _, recorder = record(strategy := FedAvg(), announce=True)
    run(strategy)
    gc.collect()
    assert len(alive) == 3 * (3 + 3 * 4)
    assert [ref for ref in alive if ref() is not None] == []
    assert recorder.errors == []


def test_the_coordinators_store_is_a_sink(tmp_path: Path) -> None:
    store = CoordinatorStore(tmp_path / "lineage.db")
    run(record_lineage(FedAvg(), store, project="p"))
    direct, _ = record(strategy := FedAvg())
    run(strategy)
    stored = store.graph()
    store.close()
    assert stored.edges() == direct.graph.edges()
    assert [(m.id, m.digest) for m in stored.models()] == [
        (m.id, m.digest) for m in direct.graph.models()
    ]


def test_shares_equal_the_strategys_weights() -> None:
    assert shares([1, 3], FedAvg()) == [0.25, 0.75]
    assert shares([0, 3], FedAvg()) == [0.0, 1.0]
    assert shares([0, 3], FedMedian()) == [0.5, 0.5]
    for odd in ([0, 0], [None, 1], [float("nan"), 1], [float("inf"), 1], [-1, 3], [[1], 1]):
        assert shares(odd, FedAvg()) == [0.5, 0.5]
    assert shares([], FedAvg()) == []


weights = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False))
answers = st.lists(st.dictionaries(st.integers(1, 5), weights, max_size=5), min_size=1, max_size=4)


def _quiet() -> Iterator[None]:
    level = logging.getLogger("flwr").level
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("flwr").setLevel(level)


quiet = pytest.fixture(autouse=True)(_quiet)


@settings(max_examples=30)
@given(answers)
def test_the_graph_is_sound_for_any_replies(given_rounds: list[dict[int, float]]) -> None:
    """Rounds of arbitrary answers: node -> reported number of examples."""
    sink, recorder = record(strategy := FedAvg())
    arrays = initial_arrays()
    grid = CallingGrid(range(1, 6), client)
    merged = {}
    for number, answered in enumerate(given_rounds, 1):
        messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in answered:
                content = train_reply(message)
                content["metrics"] = MetricRecord({"num-examples": answered[node]})
                replies.append(Message(content, reply_to=message))
        if not sum(answered.values()):
            replies = []  # FedAvg itself divides by the sum
        new, _ = strategy.aggregate_train(number, replies)
        if new is not None:
            arrays = new
            merged[f"p.r{number}"] = {n: w for n, w in answered.items() if w}
    assert recorder.errors == []
    graph = sink.graph
    graph.validate()
    assert len(set(sink.order)) == len(sink.order)
    for id, parts in merged.items():
        found = {e.parent: e.weight for e in graph.parents(id)}
        assert sum(found.values()) == pytest.approx(1)
        total = sum(parts.values())
        for node, part in parts.items():
            assert found.get(f"{id}.{node_name(node)}", 0.0) == pytest.approx(part / total)
