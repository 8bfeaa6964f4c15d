"""Rounds of calibration after a client left a recorded federation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.federation import SERVER, Federation, affine, fed_avg, packed  # isort: skip

import torch
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Strategy
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DisinheritError, InputError, RequestError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.server.recording.calibration import calibrate
from disinherit.server.recording.flower_updates import tensors
from disinherit.server.recording.recorder import node_name
from tests.support.owner import make_network


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = Federation(tmp_path_factory.mktemp("federation"), fed_avg, rounds=2)
    made.leave(3, calibration_rounds=2)
    return made


def weights_of(federation: Federation) -> Callable[[ModelRecord], Mapping[str, Tensor]]:
    def read(record: ModelRecord) -> Mapping[str, Tensor]:
        with ModelStore(federation.root / SERVER, SERVER) as store:
            return store.weights(record.id)

    return read


def run(federation: Federation, strategy: Strategy, **options: Any) -> Any:
    like = packed(make_network().state_dict())
    given = {"request_id": "q", "rounds": 1, "like": like, **options}
    given.setdefault("weights_of", weights_of(federation))
    grid = given.pop("grid", None) or federation.grid()
    return calibrate(strategy, grid, federation.store, given.pop("request_id"), **given)


def test_all_of_the_change_is_taken_out_where_rounds_follow(federation: Federation) -> None:
    old = {model: federation.weights(model, present=False) for model in ("p.r1", "p.r2")}
    sent = federation.weights("p.r2.node-3", present=False)
    before, after = federation.weights("p.r1"), federation.weights("p.r2")
    for name, value in after.items():  # its weight is 30 of 60
        expected = 2 * old["p.r2"][name] - sent[name] + before[name] - old["p.r1"][name]
        assert torch.allclose(value, expected, rtol=0, atol=1e-12)


def test_rounds_without_the_client_go_on_from_its_successor_and_are_recorded(
    federation: Federation,
) -> None:
    federation.asked.clear()
    strategy, recorder = federation.recorded(fed_avg())
    result = run(federation, strategy, rounds=None)
    assert federation.asked == [1, 2, 1, 2]
    assert federation.orders == {tuple(make_network().state_dict())}, "as the app has them"
    assert recorder.errors == []
    graph = federation.store.graph()
    # Where the run begins, a copy of the successor is recorded as usual.
    start = "p.r2-2"
    assert [edge.parent for edge in graph.parents(start)] == ["p.r2~q"]
    assert [edge.parent for edge in graph.parents("p.r3.node-1")] == [start]
    assert {edge.parent for edge in graph.parents("p.r4")} == {"p.r4.node-1", "p.r4.node-2"}
    assert weights_digest(tensors(result.arrays)) == graph.model("p.r4").digest
    # Nothing of the client is in what came of it, so the same request does not reach it.
    assert "p.r4" not in graph.affected(["p.r1.node-3"], cleansed=["p.r2~q"])


@pytest.mark.parametrize(
    ("strategy", "options", "error", "text"),
    [
        (fed_avg, {"rounds": 0}, InputError, "at least 1 round of calibration"),
        (fed_avg, {"request_id": "unknown"}, RequestError, "unknown"),
        (fed_avg, {"owner": "nobody"}, RequestError, "Run its campaign first"),
        (lambda: FedAvg(min_available_nodes=3), {}, InputError, "at least 3 nodes without"),
        (lambda: FedAvg(min_train_nodes=3), {}, InputError, "at least 3 nodes without"),
        (
            fed_avg,
            {"like": packed({"w": torch.zeros(1)})},
            InputError,
            "only the model has '0.bias'",
        ),
        (fed_avg, {"owner_of": lambda node: f"new-{node}"}, InputError, "owners in the graph"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(
    federation: Federation,
    strategy: Callable[[], Strategy],
    options: dict[str, Any],
    error: type[DisinheritError],
    text: str,
) -> None:
    federation.asked.clear()
    with pytest.raises(error, match=text) as raised:
        run(federation, strategy(), **options)
    assert "\n" not in str(raised.value)
    assert federation.asked == [], "nobody was asked to train"


@pytest.mark.parametrize(
    ("make", "what"),
    [(FedAdam, "current_arrays"), (lambda: FedAvgM(server_momentum=0.5), "current_arrays")],
)
def test_a_strategy_with_the_clients_updates_in_its_state_is_refused(
    federation: Federation, make: Callable[[], Strategy], what: str
) -> None:
    used = make()
    start = packed(federation.weights("p.r0", present=False))
    assert list(used.configure_train(1, start, ConfigRecord(), federation.grid()))
    with pytest.raises(InputError, match=f"has {what} of earlier rounds"):
        run(federation, used)


def test_requests_about_classes_and_those_rolled_back_are_refused(tmp_path: Path) -> None:
    made = Federation(tmp_path, fed_avg, rounds=1)
    made.coordinator.submit(Request(forget={"p.r1.node-1": ["cat"]}, id="classes"))
    with pytest.raises(RequestError, match="about classes or samples"):
        run(made, fed_avg(), request_id="classes")
    made.coordinator.submit(Request(client=node_name(2), id="q"))
    with pytest.raises(RequestError, match="Run its campaign first"):
        run(made, fed_avg())


def test_a_second_client_is_taken_out_of_the_rounds_of_calibration_too(
    federation: Federation,
) -> None:
    """These rounds are as without it, from what its request made of their start."""
    if not federation.store.records(["p.r4"]):
        run(federation, federation.recorded(fed_avg())[0], rounds=2)
    federation.leave(2, "later")
    expected = federation.weights("p.r2~q")
    for server_round in (1, 2):  # the second run began to count anew
        expected = affine(expected, 1, server_round)
    found = federation.weights("p.r4")
    assert all(torch.allclose(found[n], v, rtol=0, atol=1e-12) for n, v in expected.items())
