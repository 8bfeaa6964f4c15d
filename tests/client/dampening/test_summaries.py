"""Registered summaries and packets of roots, against one backward pass per sample."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.dampening.summaries import fisher_summary, register
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import FisherError, StoreError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.packets import decode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, Hungry, files_of, make_method, naive_sums
from tests.support.fisher_cases import all_sums
from tests.support.owner import FEATURES, LABELS, PointsOwner, make_network, make_points

CLASSES = ("cat", "owl", "yak")


class WatchedOwner(PointsOwner):
    """Counts the uses of the training data, and may have other networks."""

    looks = 0
    made: nn.Module | None = None

    def __enter__(self) -> Self:
        return self

    def training_data(self, record: ModelRecord) -> Batches | None:
        self.looks += 1
        return super().training_data(record)

    def network(self, record: ModelRecord) -> nn.Module:
        return self.made if self.made is not None else super().network(record)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[WatchedOwner]:
    with WatchedOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", CLASSES, 1)
        owner.train("n", LABELS[:2], 2)
        yield owner


def expected_sums(
    owner: PointsOwner, model: str, classes: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    points = make_points(owner.name, "train", LABELS, classes)
    return naive_sums(make_network(), owner.store.weights(model), *points, len(LABELS))


def ask(
    owner: PointsOwner, *roots: tuple[str, list[str]], scope: str = "head"
) -> list[pb.RootFisher]:
    listed = [pb.Root(model_id=model, classes=classes) for model, classes in roots]
    task = pb.FisherTask(request_id="r", roots=listed, method=make_method(scope=scope).to_proto())
    return list(forget_fishers(owner, task).roots)


@pytest.mark.parametrize("scope", ["head", "all", "0.*"])
def test_registered_summaries_are_the_sums_by_hand(owner: WatchedOwner, scope: str) -> None:
    reply = register(owner, pb.RegisterTask(scope=scope))
    assert reply.owner == "anna"
    assert [model.id for model in reply.models] == ["m", "n"]
    for model, classes in (("m", CLASSES), ("n", LABELS[:2])):
        stored = owner.store.fishers(model)
        assert stored is not None
        expected = expected_sums(owner, model, classes)
        names = {"head": set(HEAD), "all": set(expected), "0.*": {"0.weight", "0.bias"}}[scope]
        assert stored[0].sums.keys() == names
        sums = all_sums(stored[0])
        assert len(stored[0].classes) == len(classes)
        for name in names:
            torch.testing.assert_close(sums[name], expected[name], rtol=1e-9, atol=1e-15)
        assert stored[0].counts.tolist() == [24 * (name in classes) for name in LABELS]
        assert stored[1] == scope
    digests = {model.id: model.fisher_digest for model in reply.models}
    assert digests == {record.id: record.fisher_digest for record in owner.store.records()}


def test_registered_summary_is_not_recomputed(owner: WatchedOwner) -> None:
    register(owner, pb.RegisterTask(scope="all"))
    before, looks = files_of(owner.store.root), owner.looks
    again = register(owner, pb.RegisterTask(scope="head"))  # "all" has what "head" needs
    assert owner.looks == looks
    assert files_of(owner.store.root) == before
    assert all(model.fisher_digest for model in again.models)


def test_a_wider_scope_replaces_a_narrow_summary(owner: WatchedOwner) -> None:
    register(owner, pb.RegisterTask(scope="head", model_ids=["m"]))
    register(owner, pb.RegisterTask(scope="all", model_ids=["m"]))
    stored = owner.store.fishers("m")
    assert stored is not None
    assert stored[1] == "all"
    assert owner.store.fishers("n") is None


def test_models_without_training_data_are_returned_without_a_summary(tmp_path: Path) -> None:
    with WatchedOwner(tmp_path, "anna", keeps_data=False) as owner:
        owner.train("m", CLASSES, 1)
        (model,) = register(owner, pb.RegisterTask(scope="head")).models
    assert (model.id, model.fisher_digest) == ("m", "")


def test_registering_names_the_model_that_fails(owner: WatchedOwner) -> None:
    with pytest.raises(StoreError, match="but got 'nobody', which is not there"):
        register(owner, pb.RegisterTask(scope="head", model_ids=["nobody"]))
    with pytest.raises(FisherError, match=r"Cannot register model 'm'\. .*'5\.\*' matches none"):
        register(owner, pb.RegisterTask(scope="5.*"))
    owner.made = nn.Linear(2, 2)
    with pytest.raises(FisherError, match=r"Cannot register model 'm'\. Expected a network with"):
        register(owner, pb.RegisterTask(scope="head"))
    assert all(not record.fisher_digest for record in owner.store.records())


@pytest.mark.parametrize("registered", [True, False])
def test_roots_send_one_packet_per_class(owner: WatchedOwner, registered: bool) -> None:
    if registered:
        register(owner, pb.RegisterTask(scope="head"))
        owner.keeps_data = False
    looks = owner.looks
    (root,) = ask(owner, ("m", ["yak", "cat"]))
    assert (owner.looks == looks) is registered
    assert root.error == ""
    assert [list(packet.classes) for packet in root.packets] == [["yak"], ["cat"]]
    sums = expected_sums(owner, "m", CLASSES)
    for packet, index in zip(root.packets, (3, 0), strict=True):
        values = decode_fisher(packet)
        assert values.keys() == set(HEAD)
        for name, value in values.items():
            torch.testing.assert_close(value, sums[name][index] / 24, rtol=1e-9, atol=1e-15)
        assert (packet.head_weight, packet.head_bias) == HEAD
        assert list(packet.labels) == list(LABELS)
        assert list(packet.sources) == ["m"]
        assert packet.samples == 24


def test_failed_root_does_not_affect_other_roots(owner: WatchedOwner) -> None:
    unknown, strange, untrained, good = ask(
        owner, ("nobody", ["cat"]), ("m", ["bee"]), ("n", ["cat", "yak"]), ("m", ["cat"])
    )
    assert "got 'nobody', which is not there" in unknown.error
    assert "got unknown ['bee']" in strange.error
    assert "root 'n' to be trained directly on the classes to forget" in untrained.error
    assert "no samples of yak." in untrained.error
    assert not untrained.packets
    assert good.error == ""
    assert len(good.packets) == 1


def test_an_owners_own_error_becomes_a_reason(
    owner: WatchedOwner, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(nn.Module):
        def load_state_dict(self, *args: object, **kwargs: object) -> None:
            raise OSError("disk\nlost")

    owner.made = Broken()
    (root,) = ask(owner, ("m", ["cat"]))
    assert root.error.startswith(
        "Expected to compute the Fisher information of model 'm', but got OSError. The "
    )
    assert len(caplog.records) == 1


def test_a_root_without_a_linear_head_sends_what_it_has(tmp_path: Path) -> None:
    convolution = nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Conv1d(5, 4, 1), nn.Flatten())
    network = nn.Sequential(*convolution, nn.Softplus()).double()
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    with WatchedOwner(tmp_path, "anna") as owner:
        trained = owner.train("t", LABELS, 1)
        owner.made = network
        record = ModelRecord(
            id="m",
            owner="anna",
            architecture=architecture_fingerprint(weights),
            labels=LABELS,
            digest=weights_digest(weights),
            created_us=2,
            provenance=trained.provenance,
        )
        points = make_points("anna", "train", LABELS, LABELS)
        sums = naive_sums(network, weights, *points, len(LABELS))
        owner.store.add(record, weights, ClassFishers(sums, torch.tensor([24] * 4)), "all")
        (root,) = ask(owner, ("m", ["cat"]), scope="all")
        (none,) = ask(owner, ("m", ["cat"]), scope="head")
    assert root.error == ""
    assert (root.packets[0].head_weight, root.packets[0].head_bias) == ("", "")
    assert decode_fisher(root.packets[0]).keys() == {"1.weight", "1.bias"}
    assert "they are no sum of the outputs of '1'. Give another scope" in none.error


@pytest.mark.parametrize("limit", [4, 5, 24])
def test_summaries_are_equal_after_out_of_memory(
    owner: WatchedOwner, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    network = make_network()
    network.load_state_dict(owner.store.weights("m"))
    names = [f"network.{name}" for name in HEAD]
    with caplog.at_level(logging.WARNING):
        hungry = Hungry(network, limit)
        summary = fisher_summary(owner, owner.store.record("m"), hungry, names)
    expected = expected_sums(owner, "m", CLASSES)
    for name in HEAD:
        found = all_sums(summary.fishers)[f"network.{name}"]
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-15)
    assert summary.fishers.counts.tolist() == [24, 0, 24, 24]
    assert caplog.records[0].getMessage().startswith("Out of memory with 72 samples at once")


def test_a_model_of_very_many_parameters_is_registered_in_all_of_them(tmp_path: Path) -> None:
    """More parameters than globs in a request, and more text than in a scope."""
    layers = [nn.Linear(FEATURES, FEATURES) for _ in range(150)]
    network = nn.Sequential(*layers, nn.Linear(FEATURES, len(LABELS))).double()
    weights = {name: value.detach() for name, value in network.state_dict().items()}
    with PointsOwner(tmp_path, "anna", tuning=False) as owner:
        record = owner.train("m", LABELS, 1)
        owner.network = lambda record: network  # type: ignore[method-assign]
        owner.store.add(
            replace(
                record,
                id="deep",
                architecture=architecture_fingerprint(weights),
                digest=weights_digest(weights),
            ),
            weights,
        )
        reply = register(owner, pb.RegisterTask(scope="all", model_ids=["deep"]))
        found = owner.store.fishers("deep")
    assert [model.fisher_scale.scope for model in reply.models] == ["all"]
    assert found is not None
    assert len(found[0].sums) == 302
