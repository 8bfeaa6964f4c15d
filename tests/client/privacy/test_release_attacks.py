"""Attacks on an owner's releases in combination, which a count of samples does not stop.

The clinic has 24 samples of each of three classes, and one sample of a fourth: the attacker's
target.  For a linear head its squared gradient is its squared features times its squared residual,
so features can be derived from it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.packets import decode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import make_method
from tests.support.owner import LABELS, PointsOwner, make_network, make_points, samples_root

RARE = LABELS[3]
AT_LEAST = ReleasePolicy(min_forget_samples=20)


class Clinic(PointsOwner):
    """An owner with 24 samples of each class except the last, which has one."""

    def training_data(self, record: ModelRecord) -> list[tuple[Tensor, Tensor]]:
        inputs, targets = make_points(self.name, "train", LABELS, LABELS)
        kept = targets != LABELS.index(RARE)
        kept[(~kept).nonzero()[0]] = True
        return [(inputs[kept], targets[kept])]

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return [f"{name}-{i}" for name in LABELS for i in range(1 if name == RARE else 24)]

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        ((inputs, targets),) = self.training_data(record)
        chosen = torch.tensor([sample in samples for sample in self.sample_ids(record)])
        return [(inputs[chosen], targets[chosen])], [(inputs[~chosen], targets[~chosen])]


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    owner = Clinic(tmp_path / "clinic", "clinic")
    with owner:
        add(owner, "m", 25)
        yield owner


def add(owner: Clinic, model_id: str, steps: int) -> ModelRecord:
    """Add a model that is trained for some steps from one common start."""
    counts = {name: 1 if name == RARE else 24 for name in LABELS}
    network = make_network(len(LABELS))
    record = ModelRecord(
        model_id, "clinic", "", LABELS, "", 1, provenance=Provenance("points", counts)
    )
    ((inputs, targets),) = owner.training_data(record)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    architecture, digest = architecture_fingerprint(weights), weights_digest(weights)
    return owner.store.add(replace(record, architecture=architecture, digest=digest), weights)


def ask(owner: Owner, policy: ReleasePolicy, root: pb.Root) -> pb.RootFisher:
    task = pb.FisherTask(request_id="q", roots=[root], method=make_method().to_proto())
    (answer,) = forget_fishers(owner, task, policy).roots
    return answer


def of_classes(*classes: str, model: str = "m") -> pb.Root:
    return pb.Root(model_id=model, classes=classes)


def of_samples(owner: Clinic, ids: Sequence[str]) -> pb.Root:
    return samples_root("m", owner.store.root, list(ids))


def total(answer: pb.RootFisher) -> Tensor:
    """The sum of squared gradients of the head's weight over all packets."""
    assert not answer.error, answer.error
    return sum(
        (decode_fisher(packet)["2.weight"].double() * packet.samples for packet in answer.packets),
        torch.zeros(()),
    )


def true_gradient(owner: Clinic) -> Tensor:
    """The squared gradient of the one sample, `[C, d]`."""
    network = make_network(len(LABELS))
    network.load_state_dict(owner.store.weights("m"))
    network.double()
    ((inputs, targets),) = owner.training_data(owner.store.record("m"))
    one = targets == LABELS.index(RARE)
    nn.functional.cross_entropy(network(inputs[one].double()), targets[one]).backward()
    gradient = network[2].weight.grad
    assert isinstance(gradient, Tensor)
    return gradient**2


def others(owner: Clinic) -> list[str]:
    return [name for name in LABELS if name != RARE]


def test_without_a_bound_the_difference_of_two_answers_is_one_persons_gradient(
    clinic: Clinic,
) -> None:
    """The attack itself, which the bound prevents."""
    whole = total(ask(clinic, ReleasePolicy(), pb.Root(model_id="m")))
    most = total(ask(clinic, ReleasePolicy(), of_classes(*others(clinic))))
    torch.testing.assert_close(whole - most, true_gradient(clinic), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("total_first", [True, False])
def test_a_total_and_large_classes_do_not_leave_one_person(
    total_first: bool, clinic: Clinic
) -> None:
    roots = [pb.Root(model_id="m"), of_classes(*others(clinic))]
    first, second = roots if total_first else reversed(roots)
    assert not ask(clinic, AT_LEAST, first).withheld
    refused = ask(clinic, AT_LEAST, second)
    assert refused.withheld
    assert "separates no fewer than 20 samples of model 'm'" in refused.error
    assert not refused.packets
    assert not ask(clinic, AT_LEAST, first).withheld  # a repeated question reveals nothing new


def test_sets_that_differ_by_one_sample_are_not_both_released(clinic: Clinic) -> None:
    base = [f"{LABELS[0]}-{i}" for i in range(20)]
    assert not ask(clinic, AT_LEAST, of_samples(clinic, base)).withheld
    assert ask(clinic, AT_LEAST, of_samples(clinic, [*base, f"{RARE}-0"])).withheld
    assert ask(clinic, AT_LEAST, of_classes(LABELS[0])).withheld  # 4 of the class remain
    assert not ask(clinic, AT_LEAST, of_classes(LABELS[1])).withheld


def test_another_round_on_the_same_samples_separates_no_person(clinic: Clinic) -> None:
    """One more step hardly changes a gradient, and a copy under another id not at all."""
    for model_id, steps in (("m", 25), ("later", 26), ("copy", 25)):
        if model_id != "m":
            add(clinic, model_id, steps)
    assert not ask(clinic, AT_LEAST, pb.Root(model_id="m")).withheld
    for model_id in ("later", "copy"):
        assert ask(clinic, AT_LEAST, of_classes(*others(clinic), model=model_id)).withheld
        assert not ask(clinic, AT_LEAST, pb.Root(model_id=model_id)).withheld


def test_releases_under_the_id_of_a_version_still_count(clinic: Clinic) -> None:
    """The ledgers of earlier releases, before versions of the same data shared one."""
    assert not ask(clinic, AT_LEAST, pb.Root(model_id="m")).withheld
    with closing(sqlite3.connect(clinic.store.root / "releases.db")) as db, db:
        db.execute("UPDATE releases SET training_set = 'm'")
    add(clinic, "later", 26)
    assert ask(clinic, AT_LEAST, of_classes(*others(clinic), model="later")).withheld


class GrowingClinic(PointsOwner):
    """An owner whose data differs from version to version by some persons."""

    absent: ClassVar[dict[str, set[str]]] = {
        "m": {"cat-0"},
        "grown": set(),
        "exchanged": {"cat-1"},
        "more": {"cat-0", *(f"dog-{i}" for i in range(20))},
    }
    """Version -> ids of the persons that it was not trained on."""

    def sample_ids(self, record: ModelRecord) -> list[str]:
        everyone = (f"{name}-{i}" for name in LABELS for i in range(24))
        return [one for one in everyone if one not in self.absent[record.id]]

    def training_data(self, record: ModelRecord) -> list[tuple[Tensor, Tensor]]:
        chosen, _ = self.split_training_data(record, self.sample_ids(record))
        return list(chosen)

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        inputs, targets = make_points(self.name, "train", LABELS, LABELS)
        everyone = [f"{name}-{i}" for name in LABELS for i in range(24)]
        here = self.sample_ids(record)
        parts = []
        for inside in (True, False):
            chosen = torch.tensor([one in here and (one in samples) is inside for one in everyone])
            parts.append([(inputs[chosen], targets[chosen])])
        return parts[0], parts[1]


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[GrowingClinic]:
    owner = GrowingClinic(tmp_path / "growing", "clinic")
    with owner:
        yield owner


def add_version(owner: GrowingClinic, model_id: str, dataset: str, digest: str) -> None:
    """Add a version of the same weights, registered with its own data."""
    absent = owner.absent[model_id]
    counts = {name: sum(f"{name}-{i}" not in absent for i in range(24)) for name in LABELS}
    weights = {name: value.detach().clone() for name, value in make_network(4).state_dict().items()}
    owner.store.add(
        ModelRecord(
            model_id,
            "clinic",
            architecture_fingerprint(weights),
            LABELS,
            weights_digest(weights),
            1,
            provenance=Provenance(dataset, counts, digest),
        ),
        weights,
    )


CAT = LABELS[0]


def gradient_of(person: str) -> Tensor:
    """The squared gradient of one sample, `[C, d]`."""
    inputs, targets = make_points("clinic", "train", LABELS, LABELS)
    at = LABELS.index(person.split("-")[0]) * 24 + int(person.split("-")[1])
    network = make_network(4)
    nn.functional.cross_entropy(network(inputs[at : at + 1]), targets[at : at + 1]).backward()
    gradient = network[2].weight.grad
    assert isinstance(gradient, Tensor)
    return gradient**2


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize("dataset", ["clinic", "clinic, second year"])
@pytest.mark.parametrize(("first", "second"), [("", ""), ("ab" * 32, "cd" * 32), ("", "cd" * 32)])
@pytest.mark.parametrize("asked", [(), (CAT,)])
def test_data_that_grew_by_one_person_is_compared_under_whatever_name(
    asked: tuple[str, ...], first: str, second: str, dataset: str, growing: GrowingClinic
) -> None:
    add_version(growing, "m", "clinic", first)
    add_version(growing, "grown", dataset, second)
    roots = [pb.Root(model_id=model, classes=asked) for model in ("m", "grown")]
    before, after = (total(ask(growing, ReleasePolicy(), root)) for root in roots)
    assert cosine(after - before, gradient_of("cat-0")) > 0.99  # the attack
    assert not ask(growing, AT_LEAST, roots[0]).withheld
    refused = ask(growing, AT_LEAST, roots[1])
    assert refused.withheld
    assert not refused.packets
    assert not ask(growing, AT_LEAST, roots[0]).withheld
    # Classes that nobody joined are released, of both versions.
    for model in ("m", "grown"):
        assert not ask(growing, AT_LEAST, of_classes(LABELS[1], model=model)).withheld


@pytest.mark.parametrize("second", ["", "cd" * 32])
def test_a_person_who_left_for_another_is_not_seen(second: str, growing: GrowingClinic) -> None:
    """Equal sizes, so only the ids show that the data are not the same."""
    add_version(growing, "m", "clinic", "")
    add_version(growing, "exchanged", "clinic", second)
    before, after = (
        total(ask(growing, ReleasePolicy(), of_classes(CAT, model=model)))
        for model in ("m", "exchanged")
    )
    exchanged = gradient_of("cat-0") - gradient_of("cat-1")
    assert cosine(after - before, exchanged) > 0.99  # the attack
    assert not ask(growing, AT_LEAST, of_classes(CAT)).withheld
    assert ask(growing, AT_LEAST, of_classes(CAT, model="exchanged")).withheld


def test_what_an_owner_can_no_longer_tell_is_still_compared(
    growing: GrowingClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger keeps which samples a release was among."""
    add_version(growing, "m", "clinic", "ab" * 32)
    add_version(growing, "grown", "clinic", "cd" * 32)
    assert not ask(growing, AT_LEAST, of_classes(CAT)).withheld
    absent = {key: value for key, value in growing.absent.items() if key != "m"}
    monkeypatch.setattr(growing, "absent", absent | {"m": {*map("dog-{}".format, range(24))}})
    assert ask(growing, AT_LEAST, of_classes(CAT, model="grown")).withheld


def test_with_another_key_nothing_is_released(growing: GrowingClinic) -> None:
    """Names of the same persons would differ, and their data seem to be other data."""
    add_version(growing, "m", "clinic", "ab" * 32)
    add_version(growing, "grown", "clinic", "cd" * 32)
    assert not ask(growing, AT_LEAST, of_classes(CAT)).withheld
    key = growing.store.root / "samples.key"
    former = key.read_bytes()
    key.unlink()
    assert "Put the former key back" in ask(growing, AT_LEAST, of_classes(CAT)).error
    key.write_bytes(former)
    assert not ask(growing, AT_LEAST, of_classes(CAT)).error


def test_data_that_grew_by_enough_persons_is_released(growing: GrowingClinic) -> None:
    dog = LABELS[1]
    add_version(growing, "more", "clinic", "ab" * 32)
    add_version(growing, "m", "clinic, second year", "cd" * 32)
    policy = ReleasePolicy(min_forget_samples=4)
    assert not ask(growing, policy, of_classes(dog, model="more")).withheld
    assert not ask(growing, policy, of_classes(dog)).withheld


class NamelessClinic:
    """The growing clinic without ids of its samples."""

    def __init__(self, owner: GrowingClinic) -> None:
        self.store, self.device = owner.store, owner.device
        self.network, self.training_data = owner.network, owner.training_data
        self.tuning_data, self.evaluation_data = owner.tuning_data, owner.evaluation_data


def test_without_ids_a_class_is_released_of_one_training_set(growing: GrowingClinic) -> None:
    add_version(growing, "m", "clinic", "ab" * 32)
    add_version(growing, "grown", "clinic", "cd" * 32)
    owner = NamelessClinic(growing)
    for _ in range(2):
        assert not ask(owner, AT_LEAST, of_classes(CAT)).withheld
    refused = ask(owner, AT_LEAST, of_classes(CAT, model="grown"))
    assert refused.withheld
    assert "Give the owner `sample_ids`" in refused.error
    assert not ask(owner, AT_LEAST, of_classes(LABELS[1], model="grown")).withheld


def test_earlier_releases_count_after_a_restart_and_in_other_requests(
    clinic: Clinic, tmp_path: Path
) -> None:
    assert not ask(clinic, AT_LEAST, pb.Root(model_id="m")).withheld
    again = Clinic(tmp_path / "clinic", "clinic")
    with again:
        assert ask(again, AT_LEAST, of_classes(*others(again))).withheld


def test_a_dominant_sample_among_many_is_not_released(
    clinic: Clinic,
) -> None:
    network = make_network(len(LABELS))
    network.load_state_dict(clinic.store.weights("m"))
    record = clinic.store.record("m")
    ((inputs, targets),) = clinic.training_data(record)
    with torch.inference_mode():
        losses = nn.functional.cross_entropy(network(inputs), targets, reduction="none")
    ids = clinic.sample_ids(record)
    easy = [ids[i] for i in losses.argsort().tolist() if not ids[i].startswith(RARE)][:19]
    root = of_samples(clinic, [*easy, f"{RARE}-0"])
    packet = total(ask(clinic, ReleasePolicy(20), root))
    assert float(true_gradient(clinic).sum() / packet.sum()) > 0.9  # a count bounds nothing
    refused = ask(clinic, ReleasePolicy(20, max_sample_share=0.5), root)
    assert refused.withheld
    assert "more than 50%" in refused.error
    assert not ask(clinic, ReleasePolicy(20, max_sample_share=0.999), root).withheld


def test_noise_depends_on_the_samples_and_not_on_the_request(clinic: Clinic) -> None:
    """Two draws for one question could be averaged."""
    noisy = ReleasePolicy(clip_norm=0.05, noise_multiplier=2.0)
    as_class = ask(clinic, noisy, of_classes(LABELS[0]))
    as_samples = ask(clinic, noisy, of_samples(clinic, [f"{LABELS[0]}-{i}" for i in range(24)]))
    assert torch.equal(total(as_class), total(as_samples))
    other = ask(clinic, noisy, of_samples(clinic, [f"{LABELS[0]}-{i}" for i in range(23)]))
    assert not torch.equal(total(as_class), total(other))


def test_without_data_a_bounded_share_is_refused(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clinic, "training_data", lambda self, record: None)
    refused = ask(clinic, ReleasePolicy(max_sample_share=0.5), of_classes(LABELS[0]))
    assert "training data" in refused.error


def test_with_data_the_share_of_a_whole_class_is_bounded(clinic: Clinic) -> None:
    assert ask(clinic, ReleasePolicy(max_sample_share=0.5), of_classes(RARE)).withheld
    assert not ask(clinic, ReleasePolicy(max_sample_share=0.9), of_classes(LABELS[0])).withheld
