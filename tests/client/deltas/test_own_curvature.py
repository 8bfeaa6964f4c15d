"""Changes in a descendant's own registered curvature."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.deltas import changing
from disinherit.common.curvature.attenuation import attenuated
from disinherit.common.curvature.ekfac import measure
from disinherit.common.deltas.packets import PackedDelta
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.delta_tasks import AnyNetworkOwner, asked_change, delta_task
from tests.support.owner import LABELS
from tests.support.root_changes import apply, change_of

NOTE = "attenuated in the model's own curvature"


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[AnyNetworkOwner]:
    """An owner of root r and of m, whose curvature is registered."""
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        owner.train("r", LABELS, 1)
        owner.train("m", LABELS, 2, start=[owner.store.weights("r")], steps=10)
        record = owner.store.record("m")
        network = owner.network(record)
        network.load_state_dict(owner.store.weights("m"))
        batches = owner.training_data(record)
        assert batches is not None
        names = [name for name, _ in network.named_parameters()]
        owner.store.set_curvature("m", measure(network, names, batches, owner.device))
        yield owner


def added(owner: AnyNetworkOwner, packet: pb.FisherPacket, share: float) -> dict[str, Tensor]:
    curvature = owner.store.curvature("m")
    assert curvature is not None
    change = attenuated(PackedDelta.from_packet(packet).values, curvature)
    return {n: v + share * change[n] for n, v in owner.store.weights("m").items()}


@pytest.mark.parametrize("gains", [True, False])
def test_a_change_is_attenuated_where_the_tuning_split_gains_by_it(
    owner: AnyNetworkOwner, monkeypatch: pytest.MonkeyPatch, gains: bool
) -> None:
    packet = change_of(owner.store.weights("m"), scale=0.5 if gains else 0.01)
    expected = added(owner, packet, 0.5)
    if not gains:  # what the change does to the tuning split is all that it is asked for
        whole = PackedDelta.from_packet(packet).values
        monkeypatch.setattr(changing, "attenuated", lambda *_: {n: 9 * v for n, v in whole.items()})
    result = apply(owner, [packet], "m", 0.5)
    assert result.error == ""
    assert (NOTE in result.deltas[0].note) == gains
    found = owner.store.weights("m~q")
    close = [torch.allclose(v, expected[n], rtol=1e-9, atol=1e-12) for n, v in found.items()]
    assert all(close) == gains


def test_without_a_tuning_split_it_is_added_whole(owner: AnyNetworkOwner) -> None:
    owner.lose_data()
    result = apply(owner, [change_of(owner.store.weights("m"), scale=0.01)], "m", 0.5)
    assert result.outcome != pb.OUTCOME_FAILED
    assert NOTE not in result.deltas[0].note


def test_a_root_takes_its_own_weights_whole(owner: AnyNetworkOwner) -> None:
    packet = asked_change(owner, "m", ["cat-0", "dog-1"])
    task = delta_task(owner, [packet], {"m": [1.0]}, own={"m": ["cat-0", "dog-1"]})
    (result,) = unlearn(owner, task).models
    assert result.successor.digest == packet.delta.after
    assert NOTE not in result.deltas[0].note


@pytest.mark.parametrize("kept", [True, False])
def test_a_successor_inherits_the_curvature_only_where_its_data_is_gone(
    owner: AnyNetworkOwner, kept: bool
) -> None:
    owner.keeps_data = kept
    apply(owner, [change_of(owner.store.weights("m"), scale=0.01)], "m", 0.5)
    before, after = owner.store.curvature("m"), owner.store.curvature("m~q")
    assert before is not None
    if kept:  # it is measured again when it is registered
        assert after is None
        return
    assert after is not None
    for path, layer in before.layers.items():
        assert torch.equal(after.layers[path].values, layer.values)


def test_a_root_does_not_keep_curvature_of_what_it_forgot(
    owner: AnyNetworkOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = asked_change(owner, "m", ["cat-0", "dog-1"])
    task = delta_task(owner, [packet], {"m": [1.0]}, own={"m": ["cat-0", "dog-1"]})
    monkeypatch.setattr("disinherit.client.actions.unlearn.training_data", lambda *_: None)
    (result,) = unlearn(owner, task).models
    assert owner.store.has_curvature("m")
    assert not owner.store.has_curvature(result.successor.id)
