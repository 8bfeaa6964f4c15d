"""A client leaves a recorded federation: its part is taken out of all aggregates and what followed.

Training is affine with the derivative that is assumed of it.  So a federation that never had the
client is what has to come out, to rounding.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.federation import Federation  # isort: skip  (first of all of Flower)

import torch
from flwr.serverapp.strategy import FedAdam
from torch import Tensor

from disinherit.client.deltas.leaving import FADED
from disinherit.client.outcome import outcomes
from disinherit.client.outcome.recognition import Measured
from disinherit.server.planning.coefficients import KEPT_OF_CLIENT
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb

ROUNDS = 4
ABSENT = frozenset({(1, 2), (3, 3), (2, 4)})
"""So in one round the client that leaves has no part, and in another one of the others has not."""


def near(left: Mapping[str, Tensor], right: Mapping[str, Tensor], within: float = 1e-12) -> bool:
    return left.keys() == right.keys() and all(
        torch.allclose(left[name], right[name], rtol=0, atol=within) for name in left
    )


@pytest.fixture(scope="module", params=[(), ABSENT], ids=["all", "absent"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Federation, Federation]:
    """A federation, and the same one that never had its third node."""
    folder = tmp_path_factory.mktemp("federations")
    both = Federation(folder / "both", rounds=ROUNDS, absent=request.param)
    others = Federation(folder / "others", rounds=ROUNDS, nodes=(1, 2), absent=request.param)
    return both, others


def test_every_aggregate_is_that_of_a_federation_without_the_client(
    pair: tuple[Federation, Federation],
) -> None:
    both, others = pair
    tasks = both.leave(3)
    assert not near(
        both.weights(f"p.r{ROUNDS}", present=False), others.weights(f"p.r{ROUNDS}"), 0.01
    )
    for number in range(1, ROUNDS + 1):
        assert near(both.weights(f"p.r{number}"), others.weights(f"p.r{number}")), number
    for model, task in tasks.items():
        left = model.endswith("node-3")
        assert task.state is (TaskState.EXEMPT if left else TaskState.VERIFIED), task
        assert left or (task.result and task.result.remedy == pb.REMEDY_APPROXIMATED)
    for number in range(1, ROUNDS + 1):
        result = tasks[f"p.r{number}"].result or pb.ModelResult()
        own = [delta for delta in result.deltas if delta.root == f"p.r{number}.node-3"]
        for delta in own:
            assert delta.applied == pytest.approx(delta.coefficient / (1 - delta.coefficient))
            assert (delta.note == FADED) is (delta.measured < delta.coefficient)


def test_where_the_server_kept_no_start_the_average_gets_its_share(tmp_path: Path) -> None:
    made = Federation(tmp_path, lost=["p.r0"])
    tasks = made.leave(3)
    first, second = (tasks[f"p.r{number}"].result or pb.ModelResult() for number in (1, 2))
    assert [(one.applied, one.HasField("measured")) for one in first.deltas] == [(0.5, False)]
    # From then on there is a start.
    assert [one.applied for one in second.deltas] == [0.5 * KEPT_OF_CLIENT, 1.0]
    old, start = (made.weights(f"p.r{number}", present=False) for number in (2, 1))
    sent, new = made.weights("p.r2.node-3", present=False), made.weights("p.r1")
    expected = {
        name: 2 * value - sent[name] + KEPT_OF_CLIENT * (new[name] - start[name])
        for name, value in old.items()
    }
    assert near(made.weights("p.r2"), expected)


def test_only_averages_may_lose_any_accuracy_where_calibration_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Measured(None, "", 1.0, 0.1, 100)
    monkeypatch.setattr(outcomes, "measure", lambda owner, subject: lost)
    made = Federation(tmp_path)
    tasks = made.leave(3, calibration_rounds=1)
    states = {model: task.state for model, task in tasks.items() if not model.endswith("node-3")}
    assert states == {
        "p.r1": TaskState.VERIFIED,
        "p.r2": TaskState.VERIFIED,
        "p.r2.node-1": TaskState.HARMFUL,
        "p.r2.node-2": TaskState.HARMFUL,
    }
    assert made.coordinator.store.request("q").method.calibration_rounds == 1


def test_what_a_servers_optimiser_made_gets_shares_of_each_change_once(tmp_path: Path) -> None:
    made = Federation(tmp_path, lambda: FedAdam(fraction_evaluate=0.0), rounds=3)
    tasks = made.leave(3)
    results = {number: tasks[f"p.r{number}"].result or pb.ModelResult() for number in (1, 2, 3)}
    shares = {
        number: {share.root: share.coefficient for share in result.deltas}
        for number, result in results.items()
    }
    weight, kept = 0.5, KEPT_OF_CLIENT
    assert shares[1] == pytest.approx({"p.r1.node-3": weight * kept})
    assert shares[3] == pytest.approx(
        {f"p.r{number}.node-3": weight * kept ** (4 - number) for number in (1, 2, 3)}
    )
    for number in (1, 2, 3):
        name = f"p.r{number}"
        assert tasks[name].state is TaskState.VERIFIED
        assert results[number].remedy == pb.REMEDY_APPROXIMATED
        expected = dict(made.weights(name, present=False))
        for root, share in shares[number].items():
            start = made.weights(f"p.r{int(root[3]) - 1}", present=False)
            sent = made.weights(root, present=False)
            for tensor in expected:
                expected[tensor] = expected[tensor] + share * (start[tensor] - sent[tensor])
        assert near(made.weights(name), expected), name
