"""Strategies of Flower: recorded exactly, with a reservation, or refused; rounds that go wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.flower_app import NAME, AppGrid, example_app

import flwr.server.strategy  # isort: skip
from flwr.app import ArrayRecord, ConfigRecord, Message  # isort: skip
from flwr.serverapp import strategy as stock  # isort: skip
from flwr.serverapp.strategy import FedAvg, Strategy  # isort: skip

import disinherit.flower as ours  # isort: skip
from disinherit.client.store.store import ModelStore  # isort: skip
from disinherit.common.errors import InputError  # isort: skip
from disinherit.common.graph.graph import InheritanceGraph  # isort: skip
from disinherit.common.graph.records import InheritanceKind  # isort: skip
from disinherit.flower import strategies, unlearnable  # isort: skip
from disinherit.flower.reservations import reservation  # isort: skip
from disinherit.server.recording.flower_updates import SAMPLES_KEY  # isort: skip
from disinherit.server.store.store import CoordinatorStore  # isort: skip

EXACT = ("FedAvg", "FedProx")
STATE = "its server's state carries on what earlier updates changed"
CHOICE = "it does not say which updates it took, or how much of each"
RESERVED = {
    **dict.fromkeys(("FedAdam", "FedAdagrad", "FedYogi"), STATE),
    **dict.fromkeys(("FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan"), CHOICE),
    "QFedAvg": "it weighs updates by their loss",
}
WRAPPERS = {
    "DifferentialPrivacyServerSideFixedClipping": (0.01, 10.0, 3),
    "DifferentialPrivacyServerSideAdaptiveClipping": (0.01, 3),
    "DifferentialPrivacyClientSideFixedClipping": (0.01, 10.0, 3),
    "DifferentialPrivacyClientSideAdaptiveClipping": (0.01, 3),
}
NOISE = "it clips updates and adds noise"
REFUSED = ("FedXgbBagging", "FedXgbCyclic")

OPTIONS: dict[str, dict[str, Any]] = {
    "Krum": {"num_malicious_nodes": 0},
    "MultiKrum": {"num_malicious_nodes": 0, "num_nodes_to_select": 2},
    "Bulyan": {"num_malicious_nodes": 0},
    "FedProx": {"proximal_mu": 0.1},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "train_loss"},
}
ROUNDS = 2


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    with example_app(tmp_path_factory.mktemp("strategies") / "models") as load:
        yield load


def train(load: Callable[[str], Any], strategy: Strategy, run: int, **grid: Any) -> Any:
    nodes = AppGrid(load("flower_app.client_app").app, 3, run)
    vars(nodes).update(grid)
    arrays = ArrayRecord(load("flower_app.task").Net().state_dict())
    config = ConfigRecord({"lr": 0.1})
    return strategy.start(nodes, arrays, num_rounds=ROUNDS, train_config=config)


def recorded() -> InheritanceGraph:
    store = CoordinatorStore(Path(NAME, "server", "lineage.db"))
    try:
        return store.graph()
    finally:
        store.close()


def kinds(graph: InheritanceGraph, model: str) -> dict[str, InheritanceKind]:
    return {edge.parent: edge.kind for edge in graph.parents(model)}


def updates(run: int, number: int) -> set[str]:
    return {f"run-{run}.r{number}.node-{node}" for node in range(3)}


def make(name: str) -> Strategy:
    made: Strategy = getattr(stock, name)(
        **{"fraction_evaluate": 0.0, "min_available_nodes": 3, **OPTIONS.get(name, {})}
    )
    return made


def test_every_strategy_of_flower_is_known() -> None:
    known = {*EXACT, *RESERVED, *WRAPPERS, *REFUSED, "FedAvgM", "FedAvg", "Strategy", "Result"}
    assert {*stock.__all__} == known
    assert {*dir(strategies)} == known - {"Strategy", "Result"}


@pytest.mark.parametrize("name", EXACT)
def test_a_plain_average_is_recorded_exactly(load: Callable[[str], Any], name: str) -> None:
    run = 100 + EXACT.index(name)
    strategy = make(name)
    assert reservation(strategy) == ""
    assert unlearnable(strategy) is strategy
    train(load, strategy, run)
    graph = recorded()
    for number in range(1, ROUNDS + 1):
        found = kinds(graph, f"run-{run}.r{number}")
        assert found == dict.fromkeys(updates(run, number), InheritanceKind.FEDERATED)


def test_momentum_is_a_state_and_none_is_an_average() -> None:
    assert reservation(stock.FedAvgM(server_momentum=0.0)) == ""
    assert reservation(stock.FedAvgM(server_momentum=0.9)) == STATE


@pytest.mark.parametrize("name", RESERVED)
def test_others_are_recorded_with_the_model_before(load: Callable[[str], Any], name: str) -> None:
    run = 200 + [*RESERVED].index(name)
    strategy = make(name)
    assert reservation(strategy) == RESERVED[name]
    train(load, unlearnable(strategy), run)
    check_reserved(run)


@pytest.mark.parametrize("name", WRAPPERS)
def test_so_are_wrappers_with_noise(load: Callable[[str], Any], name: str) -> None:
    run = 300 + [*WRAPPERS].index(name)
    strategy: Strategy = getattr(stock, name)(make("FedAvg"), *WRAPPERS[name])
    assert reservation(strategy) == NOISE
    if "ClientSide" in name:  # which also take a mod of the clients
        unlearnable(strategy)
        return
    train(load, unlearnable(strategy), run)
    check_reserved(run)


def check_reserved(run: int) -> None:
    graph = recorded()
    for number in range(1, ROUNDS + 1):
        found = kinds(graph, f"run-{run}.r{number}")
        assert found.pop(f"run-{run}.r{number - 1}") is InheritanceKind.INCREMENTAL
        assert found == dict.fromkeys(updates(run, number), InheritanceKind.FEDERATED)


def test_a_strategy_of_ones_own_has_a_reservation() -> None:
    class Mine(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    assert reservation(Mine()) == "its aggregate is its own"


@pytest.mark.parametrize("name", REFUSED)
def test_trees_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} aggregates trees") as raised:
        unlearnable(getattr(stock, name)())
    assert "\n" not in str(raised.value)


def test_what_is_no_strategy_is_refused() -> None:
    with pytest.raises(InputError, match=r"Expected a strategy of flwr.serverapp.strategy, but"):
        unlearnable("FedAvg")  # type: ignore[type-var]
    with pytest.raises(InputError, match=r"got flwr\.server\.strategy\.fedavg\.FedAvg"):
        unlearnable(flwr.server.strategy.FedAvg())  # type: ignore[type-var]


def test_strategies_by_their_own_names_do_the_same(load: Callable[[str], Any]) -> None:
    made = ours.FedAvg(fraction_evaluate=0.0)
    assert isinstance(made, FedAvg)
    assert reservation(made) == ""
    before = dict(vars(made))
    train(load, made, 400)
    assert {name: vars(made)[name] for name in before} == before
    assert kinds(recorded(), "run-400.r2") == dict.fromkeys(
        updates(400, 2), InheritanceKind.FEDERATED
    )
    with pytest.raises(AttributeError, match="no attribute 'FedBest'"):
        getattr(ours, "FedBest")  # noqa: B009
    assert getattr(strategies, "FedAvg") is ours.FedAvg  # noqa: B009


def test_a_wrapper_that_is_not_ours_is_seen(load: Callable[[str], Any]) -> None:
    inner = ours.FedAvg(fraction_evaluate=0.0)
    with pytest.raises(InputError, match="Import that one from disinherit.flower, too"):
        train(load, stock.DifferentialPrivacyServerSideFixedClipping(inner, 0.01, 1.0, 3), 401)
    outer = ours.DifferentialPrivacyServerSideFixedClipping(inner, 0.01, 10.0, 3)
    train(load, outer, 402)
    check_reserved(402)


def test_nodes_that_fail_or_are_not_chosen_contribute_nothing(load: Callable[[str], Any]) -> None:
    def fails(message: Message) -> None:
        if message.metadata.dst_node_id == 2 and message.metadata.message_type == "train":
            raise OSError("the disk is gone")

    train(load, unlearnable(FedAvg(fraction_evaluate=0.0)), 500, _interfere=fails)
    graph = recorded()
    assert {*kinds(graph, "run-500.r2")} == updates(500, 2) - {"run-500.r2.node-1"}
    few = FedAvg(fraction_evaluate=0.0, fraction_train=0.4, min_train_nodes=1)
    train(load, unlearnable(few), 501)
    assert len(kinds(recorded(), "run-501.r1")) == 1


def test_an_update_that_cannot_be_kept_does_not_stop_training(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = load("flower_app.client_app").app

    def broken(partition_id: int) -> Any:
        raise OSError("no such file: patients.csv")

    monkeypatch.setattr(app, "functions", replace(app.functions, data=broken))
    result = train(load, unlearnable(FedAvg(fraction_evaluate=0.0)), 502)
    assert result.arrays
    graph = recorded()
    lost = graph.model("run-502.r1.node-0")
    assert lost.provenance is None
    store = ModelStore(Path(NAME, "node-0", "models"), "node-0")
    assert not [one for one in store.records() if one.id.startswith("run-502")]
    store.close()


def test_replies_are_what_they_were_but_for_a_count(load: Callable[[str], Any]) -> None:
    seen: list[Message] = []

    class Watching(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            seen.extend(replies := list(replies))
            return super().aggregate_train(server_round, replies)

    train(load, unlearnable(Watching(fraction_evaluate=0.0)), 503)
    for reply in seen:
        assert {*reply.content} == {"arrays", "metrics", "disinherit"}
        counts: Any = reply.content["disinherit"][SAMPLES_KEY]
        assert sum(counts) == reply.content["metrics"]["num-examples"]
