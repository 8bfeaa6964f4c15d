"""A client leaves a federation after some rounds: the measurement, in small."""

from typing import Any

import pytest

from tests.support import flower_rounds  # isort: skip  (first of all of Flower)

import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import strategy as flower

from disinherit.simulations.bench import federated_rounds as bench
from disinherit.simulations.bench import federation
from disinherit.simulations.bench.cases.subjects import Weights


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "PARTITIONS", {"skewed": federation.PARTITIONS["skewed"]})
        return bench.measure([0], (1,))


@pytest.fixture(scope="module")
def clients() -> federation.Clients:
    return federation.Clients.made("skewed", 0)


def near(left: Weights, right: Weights, within: float = 1e-5) -> bool:
    return all(torch.allclose(left[name], right[name], rtol=0, atol=within) for name in left)


def test_one_round_without_the_client_is_exact_and_two_are_not(clients: federation.Clients) -> None:
    share = clients.shares(clients.all)[clients.leaves]
    start = clients.start()
    both = federation.federate(clients, clients.all, federation.fed_avg, 2, start)
    without = federation.federate(clients, clients.others, federation.fed_avg, 2, start)
    made = bench.taken_out(both, share, 0.9)
    assert near(made[0], without.models[1])
    assert not near(made[1], without.models[2], 1e-3)
    again = bench.server_again(both, share, 0.9, federation.fed_avg)
    assert all(near(one, other, 0.0) for one, other in zip(made, again, strict=True))


def test_a_federation_by_itself_never_asks_the_client_that_left(
    clients: federation.Clients,
) -> None:
    without = federation.federate(clients, clients.others, federation.fed_avg, 1, clients.start())
    assert without.updates == []
    assert sum(clients.shares(clients.others).values()) == pytest.approx(1.0)


def test_the_servers_step_is_that_of_flower() -> None:
    strategy = flower.FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3, fraction_evaluate=0.0)
    averages: list[Weights] = []

    def client(message: Message) -> RecordDict:
        arrays = message.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        if message.metadata.dst_node_id == 1:
            # Node 1 moves everything by 0.1, and node 2 by 0.2 with twice the weight.
            state = arrays.to_torch_state_dict()
            averages.append({name: value + 0.5 / 3 for name, value in state.items()})
        return flower_rounds.client(message)

    flower_rounds.run(strategy, client, nodes=(1, 2), rounds=4)
    model = dict(flower_rounds.initial_arrays().to_torch_state_dict())
    step = federation.FedAdam()
    for average in averages[:-1]:
        model = step(model, average)
    assert strategy.current_arrays is not None  # what the last round began with
    sent = {name: torch.from_numpy(value) for name, value in strategy.current_arrays.items()}
    assert all(torch.allclose(model[n].double(), v.double(), atol=1e-5) for n, v in sent.items())


def test_figures_are_there_for_every_row_and_calibration(found: dict[str, Any]) -> None:
    for strategy, kinds in found.items():
        for rounds in kinds.values():
            rows = rounds["1"]["rows"]
            assert {"untouched", "retrained", "T = 0.9", "T = 1"} <= set(rows)
            assert all(set(row) == {"0", "1", "3"} for row in rows.values())
            exact = "T = 0.9" if strategy == "FedAvg" else "server again, T = 1"
            for figure in ("auc", "forget", "accuracy"):
                without = rows["retrained"]["0"][figure]["mean"]
                assert rows[exact]["0"][figure]["mean"] == pytest.approx(without, abs=1.0)
    assert "FedAdam, skewed data" in bench.tables(found)
