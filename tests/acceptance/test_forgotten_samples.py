"""Samples of real networks, retrained without them, dampened a little, or as they were.

A network that never saw the samples counts as having forgotten them, to its owner and to the
coordinator; one that still knows them never does, whatever its losses.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from disinherit import Method, Network
from disinherit.client.outcome.class_counts import BeforeAndAfter, chance_margin
from disinherit.client.outcome.recognition import measure
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Mechanism
from disinherit.common.models.inputs import Inputs
from disinherit.common.wire.recognition import had_power, recognises, unshown, what_to_do
from disinherit.describing import describe_model
from disinherit.server.campaign.outcomes import outcome_of
from disinherit.server.states import Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, PointsOwner

FORGET = 20
"""Samples to forget."""

Points = tuple[Tensor, Tensor]
Weights = Mapping[str, Tensor]


def batches(data: Points) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*data), batch_size=50)


def points(features: int, apart: float, each: int, seed: int) -> Points:
    """Noisy points around one centre for each class: the farther apart, the less is memorised."""
    centres = torch.randn(len(LABELS), features, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(len(LABELS)).repeat_interleave(each)
    noise = torch.randn(len(targets), features, generator=torch.Generator().manual_seed(seed))
    return apart * centres[targets] + noise, targets


def fit(features: int, data: Points, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, len(LABELS)))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(data[0]), data[1]).backward()
        optimizer.step()
    return network


@dataclass(frozen=True)
class Case:
    """A network that was trained on samples to forget, and one that was not."""

    features: int
    chosen: Tensor
    data: Points
    unseen: Points
    trained: nn.Sequential
    retrained: nn.Sequential

    @property
    def forget(self) -> Points:
        return self.data[0][self.chosen], self.data[1][self.chosen]

    @property
    def kept(self) -> Points:
        return self.data[0][~self.chosen], self.data[1][~self.chosen]


def make(features: int, apart: float, relabelled: bool) -> Case:
    inputs, targets = points(features, apart, 40, seed=1)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(2))
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    chosen[order[:FORGET]] = True
    if relabelled:
        targets = torch.where(chosen, (targets + 1) % len(LABELS), targets)
    return Case(
        features,
        chosen,
        (inputs, targets),
        points(features, apart, 100, seed=3),
        fit(features, (inputs, targets)),
        fit(features, (inputs[~chosen], targets[~chosen])),
    )


@pytest.fixture(scope="module")
def memorised() -> Case:
    """Samples with labels that are right, of classes that are hard to tell."""
    return make(60, 0.25, relabelled=False)


@pytest.fixture(scope="module")
def relabelled() -> Case:
    """Samples with labels that are wrong, of classes that are easily told."""
    return make(10, 1.0, relabelled=True)


class Hospital(PointsOwner):
    """An owner of one network, with or without held-out data."""

    case: Case

    def network(self, record: ModelRecord) -> nn.Module:
        width, classes = 128, len(LABELS)
        return nn.Sequential(
            nn.Linear(self.case.features, width), nn.ReLU(), nn.Linear(width, classes)
        )

    def evaluation_data(self, record: ModelRecord) -> list[Points] | None:
        return [self.case.unseen] if self.evaluates else None


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    owner = Hospital(tmp_path / "hospital", "hospital", tuning=False)
    with owner:
        yield owner


def figures(owner: Hospital, case: Case, after: Weights, *, evaluates: bool) -> pb.Recognition:
    owner.case, owner.evaluates = case, evaluates
    record = describe_model("m", case.trained, owner="hospital", labels=LABELS, created_us=1)
    subject = BeforeAndAfter(
        record, case.trained.state_dict(), after, samples=[case.forget], kept=[case.kept]
    )
    found = measure(owner, subject).forget
    assert found is not None
    return found


def verdict(found: pb.Recognition, *, cleared_before: bool = False) -> TaskState:
    """What the coordinator makes of an owner's report of success."""
    successor = describe_model(
        "m~q", nn.Linear(2, 2), owner="hospital", labels=("a", "b"), created_us=2
    )
    result = pb.ModelResult(
        model_id="m",
        outcome=pb.OUTCOME_APPLIED,
        forget=found,
        cleared_before=cleared_before,
        selections=[pb.Selection(parameter="0.weight", rows=[3], total=8)],
    )
    result.successor.CopyFrom(record_to_proto(successor))
    sent = pb.UnlearnTask(request_id="q", fishers=[pb.FisherPacket()])
    answered = outcome_of(Task("m", "hospital"), result, sent, pb.ModelTask(model_id="m"))
    task = answered if isinstance(answered, Task) else answered.task
    assert task.state is not TaskState.FAILED, task.reason
    return task.state


def raised(case: Case) -> Weights:
    """Weights with a smaller head: all losses rise, and every sample is named as before."""
    weights = case.trained.state_dict()
    return {name: 0.3 * value if "2." in name else value for name, value in weights.items()}


def forgotten(found: pb.Recognition) -> bool:
    return not recognises(found) and not unshown(found)


def test_memorised_samples_count_as_forgotten_after_retraining(
    hospital: Hospital, memorised: Case
) -> None:
    found = figures(hospital, memorised, memorised.retrained.state_dict(), evaluates=True)
    assert had_power(found), found
    assert forgotten(found), unshown(found)
    assert verdict(found) is TaskState.APPLIED
    for after in (memorised.trained.state_dict(), raised(memorised)):
        known = figures(hospital, memorised, after, evaluates=True)
        assert not forgotten(known)
        assert verdict(known) is TaskState.INEFFECTIVE


def test_kept_training_samples_do_not_tell(hospital: Hospital, memorised: Case) -> None:
    """Among them an AUC of one half is normal, for samples that are known as for others."""
    for after in (memorised.retrained.state_dict(), raised(memorised)):
        found = figures(hospital, memorised, after, evaluates=False)
        assert abs(found.before - found.floor) < found.margin
        assert not recognises(found)
        assert "there are no unseen samples to compare them with" in unshown(found)
        assert what_to_do(found).startswith("roll it back, and give its owner evaluation data")
        assert verdict(found) is TaskState.INEFFECTIVE


@pytest.mark.parametrize("evaluates", [True, False])
def test_relabelled_samples_count_as_forgotten_after_retraining(
    hospital: Hospital, relabelled: Case, evaluates: bool
) -> None:
    found = figures(hospital, relabelled, relabelled.retrained.state_dict(), evaluates=evaluates)
    assert not had_power(found), found
    assert forgotten(found), unshown(found)
    assert verdict(found) is TaskState.APPLIED
    slightly = figures(hospital, relabelled, raised(relabelled), evaluates=evaluates)
    assert slightly.loss_after > slightly.loss_before + 0.01
    assert slightly.named_after == 1
    assert not recognises(slightly)
    assert "had no power before" in unshown(slightly)
    assert verdict(slightly) is TaskState.INEFFECTIVE


def test_samples_that_are_all_still_named_are_not_forgotten(
    hospital: Hospital, memorised: Case
) -> None:
    """Losses like those of unseen samples do not hide that the network knows every one."""
    found = figures(hospital, memorised, memorised.retrained.state_dict(), evaluates=True)
    assert 0.7 < found.named_chance < 1
    found.named_after = 1
    assert not recognises(found)
    assert "the model still knows the samples to forget: it names 100.0%" in unshown(found)
    assert verdict(found) is TaskState.INEFFECTIVE


def test_an_attack_just_beyond_chance_must_lose_half_of_its_power() -> None:
    found = pb.Recognition(
        measure="auc", before=0.62, after=0.59, floor=0.5, margin=0.1, samples=20,
        loss_after=1, named_before=1, named_after=0.8, named_chance=0.9, source="evaluation",
    )  # fmt: skip
    assert "has kept more than half of its power" in unshown(found)
    found.after = 0.55
    assert forgotten(found)


def test_what_was_forgotten_before_needs_no_new_evidence(
    hospital: Hospital, relabelled: Case
) -> None:
    """The samples again, in a network that has already forgotten them."""
    again = replace(relabelled, trained=relabelled.retrained)
    found = figures(hospital, again, relabelled.retrained.state_dict(), evaluates=True)
    assert not forgotten(found)
    assert verdict(found) is TaskState.INEFFECTIVE
    assert verdict(found, cleared_before=True) is TaskState.APPLIED


def heir_of(model: nn.Module, data: Points) -> nn.Module:
    """A model that was trained on, with other data."""
    heir = copy.deepcopy(model)
    optimizer = torch.optim.SGD(heir.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(heir(data[0]), data[1]).backward()
        optimizer.step()
    return heir


@pytest.fixture(scope="module")
def line(relabelled: Case) -> dict[str, tuple[nn.Module, Points]]:
    """A root, its child and its grandchild, with the data of each."""
    first, second = (points(10, 1.0, 30, seed=seed) for seed in (11, 13))
    child = heir_of(relabelled.trained, first)
    return {
        "base": (relabelled.trained, relabelled.data),
        "child": (child, first),
        "grandchild": (heir_of(child, second), second),
    }


def network_of(
    line: Mapping[str, tuple[nn.Module, Points]], case: Case, *, retrains: bool
) -> Network:
    def retrain(kept: Iterable[tuple[Inputs, Tensor]] | None) -> Weights:
        if kept is None:
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, len(LABELS))
            ).state_dict()
        inputs, targets = zip(*kept, strict=True)
        parts = [one if isinstance(one, Tensor) else one[0] for one in inputs]
        return fit(10, (torch.cat(parts), torch.cat(targets))).state_dict()

    network = Network(LABELS)
    parents: list[str] = []
    for name, (model, data) in line.items():
        network.add(
            name,
            copy.deepcopy(model),
            batches(data),
            parents=parents,
            evaluate=batches(case.unseen),
            retrain=retrain if retrains and not parents else None,
        )
        parents = [name]
    return network


@pytest.mark.parametrize("retrains", [True, False])
def test_a_root_and_all_that_descend_from_it_forget_samples_by_default(
    relabelled: Case, line: dict[str, tuple[nn.Module, Points]], retrains: bool
) -> None:
    network = network_of(line, relabelled, retrains=retrains)
    asked = relabelled.chosen.nonzero().flatten().tolist()
    result = network.forget(samples=asked, root="base")
    assert result.complete, str(result)
    how = "replay" if retrains else "neggrad+"
    assert result["base"].root_method == how
    assert result["base"].remedy == ("replayed" if retrains else "approximated")
    for name in ("child", "grandchild"):
        outcome = result[name]
        assert (outcome.remedy, outcome.root_method) == ("approximated", "")
        assert outcome.changes == {"base": 1.0}
        assert outcome.scope == "all"
        assert outcome.forget is not None
        assert outcome.forget.named is not None
        assert outcome.forget.named[0] > 0.5 > 2 * outcome.forget.named[1]
    if retrains:
        replayed = result.models["base"].state_dict()
        for name, value in relabelled.retrained.state_dict().items():
            torch.testing.assert_close(replayed[name], value, rtol=1e-3, atol=1e-4)
    assert [line.split() for line in str(result).splitlines()][2][:5] == [
        "model",
        "state",
        "remedy",
        "changed",
        "by",
    ]
    assert "1.00 of the change of base" in str(result)
    (open_,) = (one for one in result.reservations if "not trained again" in one)
    assert open_.startswith("child, grandchild: " if retrains else "base, child, grandchild: ")
    assert result.to_dict()["models"][1]["changes"] == {"base": 1.0}


def test_samples_that_a_replay_took_away_leave_all_models_as_they_are(
    relabelled: Case, line: dict[str, tuple[nn.Module, Points]]
) -> None:
    network = network_of(line, relabelled, retrains=True)
    asked = relabelled.chosen.nonzero().flatten().tolist()
    assert network.forget(samples=asked, root="base").complete
    again = network.forget(samples=asked, root="base")
    assert again.complete
    for model in ("base", "child", "grandchild"):
        assert (again[model].state, again[model].remedy) == ("verified", "untouched")
        assert again[model].selected == 0


@pytest.mark.parametrize("mechanism", ["fisher", "delta"])
@pytest.mark.parametrize("evaluates", [True, False])
def test_samples_that_are_asked_for_again_stay_forgotten(
    relabelled: Case, evaluates: bool, mechanism: Mechanism
) -> None:
    """A real request with a repair, and the same request again."""
    held_out = batches(relabelled.unseen) if evaluates else None
    network = Network(LABELS, scope="all")
    network.add("m", copy.deepcopy(relabelled.trained), batches(relabelled.data), evaluate=held_out)
    asked = relabelled.chosen.nonzero().flatten().tolist()
    method = Method(scope="all", alpha=1.0, lam=0.3, repair_steps=30, mechanism=mechanism)
    first = network.forget(samples=asked, method=method)
    assert first.complete, str(first)
    figure = first["m"].forget
    assert figure is not None
    assert figure.named is not None
    assert figure.named[0] == 1
    assert figure.named[1] <= chance_margin(FORGET)
    assert str(figure).endswith("(training)") is not evaluates
    default = Method(scope="all", mechanism=mechanism)
    again = network.forget(samples=asked, method=default)
    assert again.complete, str(again)
    assert any("earlier requests had cleared it" in one for one in again.reservations)
    others = (~relabelled.chosen).nonzero().flatten().tolist()[:FORGET]
    other = network.forget(samples=others, method=default)
    assert not any("had cleared it" in one for one in other.reservations), "others are not cleared"
    shown = evaluates and mechanism == "delta"  # a root method takes others out, and figures tell
    assert other["m"].state == ("verified" if shown else "ineffective")
