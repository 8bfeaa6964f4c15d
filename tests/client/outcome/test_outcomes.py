"""Outcomes of unlearning, from the selection and the owner's data."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.outcome.class_counts import BeforeAndAfter, chance_margin
from disinherit.client.outcome.outcomes import recognised
from disinherit.client.outcome.recognition import Measured, measure
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.membership import auc_margin
from disinherit.common.wire.recognition import gentler_ways, unshown
from disinherit.common.wire.samples import digest_samples
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.owner import LABELS, SAMPLES, PointsOwner, make_points, samples_root

METHOD = make_method(gauge=3.0)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    with PointsOwner(tmp_path / "anna", "anna", tuning=False) as owner:
        owner.train("m", LABELS, 1)
        owner.train("n", ("dog", "yak"), 2, labels=("dog", "yak"))
        register(owner, pb.RegisterTask(scope="all"))
        yield owner


def done(owner: PointsOwner, task: pb.UnlearnTask) -> pb.ModelResult:
    (result,) = unlearn(owner, task).models
    return result


def test_a_forgotten_class_is_applied_with_figures(owner: PointsOwner) -> None:
    result = done(owner, make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD))
    assert (result.outcome, result.error) == (pb.OUTCOME_APPLIED, "")
    found = result.forget
    assert (found.measure, found.source, found.samples) == ("accuracy", "evaluation", 16)
    assert (found.before, found.after, found.floor) == (1.0, 0.0, 0.0)
    assert found.margin == pytest.approx(chance_margin(16))
    assert (result.retain_before, result.retain_samples) == (1.0, 48)


@pytest.mark.parametrize("data", [True, False])
def test_an_empty_selection_is_ineffective_and_not_stored(owner: PointsOwner, data: bool) -> None:
    method = make_method(alpha=1e30, scope="all", row_scoped=False)
    packet = collect(owner, "m", ["cat"], method)
    if not data:
        owner.lose_data()
    before = files_of(owner.store.root)
    task = make_task(owner, ["m"], packet, method)
    for _ in range(2):
        result = done(owner, task)
        assert result.outcome == pb.OUTCOME_INEFFECTIVE
        assert result.error.startswith("nothing was selected among 124 values")
        assert ("100.0% of 16 evaluation samples of class 'cat'" in result.error) is data
        assert not result.HasField("successor")
    assert files_of(owner.store.root) == before


def test_a_recognised_class_is_ineffective_and_can_be_rolled_back(
    owner: PointsOwner,
) -> None:
    # It selects values, with a negligible change.
    method = make_method(scope="all", row_scoped=False, gauge=0.0, bound=1 - 1e-9, lam=1e30)
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], method), method)
    result = done(owner, task)
    assert result.outcome == pb.OUTCOME_INEFFECTIVE
    assert "has not forgotten, and it names 100.0% of 16 evaluation samples" in result.error
    assert "roll it back" in result.error
    assert owner.store.record("m").status.value == "superseded"
    again = done(owner, task)
    assert again.outcome == pb.OUTCOME_INEFFECTIVE, "it is not more effective a second time"
    assert again.successor == result.successor
    back = owner.store.roll_back("forget", "m", owner.store.record("m").digest)
    assert back.retired_id == result.successor.id


def test_a_large_loss_is_harmful_and_not_stored(owner: PointsOwner) -> None:
    method = make_method(scope="all", row_scoped=False, alpha=0.001, lam=0.001)
    packet = collect(owner, "m", ["cat"], method)
    task = make_task(owner, ["m"], packet, method)
    before = files_of(owner.store.root)
    result = done(owner, task)
    assert result.outcome == pb.OUTCOME_HARMFUL
    assert "retain accuracy would fall from 100.0% to " in result.error
    assert "more than 20" in result.error
    assert files_of(owner.store.root) == before
    task.max_retain_drop = 100
    assert done(owner, task).outcome != pb.OUTCOME_HARMFUL, "the request's own bound holds"


@pytest.mark.parametrize("method", [METHOD, make_method(scope="all", alpha=1.0)])
def test_a_model_without_a_class_of_the_request_is_not_reached(
    owner: PointsOwner, method: Method
) -> None:
    before = files_of(owner.store.root)
    task = make_task(owner, ["n"], collect(owner, "m", ["cat", "owl"], method), method)
    result = done(owner, task)
    if method.scope == "all":
        assert sum(sum(one.rows) for one in result.selections) > 0
        assert files_of(owner.store.root) == before
    assert result.outcome == pb.OUTCOME_NOT_REACHED
    assert "('cat', 'owl') is a class of model 'n', which has 'dog', 'yak'" in result.error
    assert owner.store.applied("forget", owner.store.record("n").digest, "n") is None


def test_classes_forgotten_before_need_no_new_selection(owner: PointsOwner) -> None:
    packet = collect(owner, "m", ["cat"], METHOD)
    first = done(owner, make_task(owner, ["m"], packet, METHOD, "one"))
    method = make_method(alpha=1e30, scope="all", row_scoped=False)
    packet = collect(owner, "m", ["cat"], method)
    task = make_task(owner, [first.successor.id], packet, method, "two")
    result = done(owner, task)
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert result.cleared_before
    assert result.successor.digest == first.successor.digest


def test_evaluation_data_affects_only_the_outcome(tmp_path: Path) -> None:
    method = make_method(alpha=None, lam=None, gauge=None)
    made = []
    for name in ("with", "without"):
        with PointsOwner(tmp_path / name, "anna", evaluates=name == "with") as owner:
            owner.train("m", LABELS, 1)
            register(owner, pb.RegisterTask(scope="head"))
            packet = collect(owner, "m", ["cat"], method)
            made.append(done(owner, make_task(owner, ["m"], packet, method)))
    assert made[0].successor.digest == made[1].successor.digest
    assert [result.forget.source for result in made] == ["evaluation", "tuning"]


class Memoriser(PointsOwner):
    """An owner of models with a single layer."""

    def network(self, record: ModelRecord) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 4)).double()


def test_samples_are_compared_with_unseen_ones_by_loss(tmp_path: Path) -> None:
    """A network that adds to the logits of samples it has seen, and one that does not."""
    with Memoriser(tmp_path, "anna") as owner:
        record = owner.train("m", LABELS, 1)
        inputs, targets = make_points("anna", "evaluation", LABELS, ("cat",))
        inputs += 10.0
        knowing = {"0.weight": torch.zeros(4, 5).double(), "0.bias": torch.zeros(4).double()}
        ignorant = {name: value.clone() for name, value in knowing.items()}
        knowing["0.weight"][0] = 1.0  # the larger an input, the more confident in class 0
        subject = BeforeAndAfter(record, knowing, ignorant, samples=[(inputs, targets)])
        found = measure(owner, subject)
        assert found.forget is not None
        assert (found.forget.measure, found.forget.floor) == ("auc", 0.5)
        assert (found.forget.before, found.forget.after) == (1.0, 0.5)
        assert found.forget.margin == pytest.approx(auc_margin(16, 16))
        assert not found.recognises
        reverse = BeforeAndAfter(record, ignorant, knowing, samples=[(inputs, targets)])
        assert measure(owner, reverse).recognises


@pytest.mark.parametrize(("unseen", "found"), [(99, None), (200, (0.75, 0.0))])
def test_an_attack_is_counted_at_few_false_alarms(
    tmp_path: Path, unseen: int, found: tuple[float, float] | None
) -> None:
    """With fewer than 100 unseen samples, 1 % of them is not one."""

    class Large(Memoriser):
        """An owner of many unseen points, of ever more confidence."""

        def evaluation_data(self, record: ModelRecord) -> Batches | None:
            inputs = torch.zeros(unseen, 5).double()
            inputs[:, 0] = torch.arange(unseen) / 10
            return [(inputs, torch.zeros(unseen, dtype=torch.long))]

    with Large(tmp_path, "anna") as owner:
        record = owner.train("m", LABELS, 1)
        inputs = torch.zeros(4, 5).double()
        inputs[:3, 0] = 30.0
        knowing = {"0.weight": torch.zeros(4, 5).double(), "0.bias": torch.zeros(4).double()}
        ignorant = {name: value.clone() for name, value in knowing.items()}
        knowing["0.weight"][0, 0] = 1.0
        samples = [(inputs, torch.zeros(4, dtype=torch.long))]
        forget = measure(owner, BeforeAndAfter(record, knowing, ignorant, samples=samples)).forget
        assert forget is not None
        if found is None:
            assert not (forget.HasField("found_before"))
            assert not (forget.HasField("found_after"))
        else:
            assert (forget.found_before, forget.found_after, forget.unseen) == (*found, unseen)


def test_a_root_measures_its_samples_to_forget(owner: PointsOwner) -> None:
    samples = [f"cat-{i}" for i in range(5)]
    named = digest_samples(sample_key(owner.store.root), secrets.token_hex(16), samples)
    method = make_method(scope="all", row_scoped=False, alpha=3.0, gauge=0.0)
    packet = collect(owner, "m", ["cat"], method)
    packet.ClearField("classes")
    task = make_task(owner, ["m"], packet, method)
    task.models[0].samples.extend(named.digests)
    task.models[0].sample_salt = named.salt
    result = done(owner, task)
    assert (result.forget.measure, result.forget.samples) == ("auc", 5)
    assert result.forget.margin == pytest.approx(auc_margin(5, SAMPLES["evaluation"]))
    # A descendant of the same owner is measured with the samples of the root.
    owner.train("k", ("dog",), 3, start=[owner.store.weights("m")])
    register(owner, pb.RegisterTask(scope="all"))
    task = make_task(owner, ["k"], packet, method, "other")
    root = pb.Root(model_id="m", samples=named.digests, sample_salt=named.salt)
    task.roots.append(root)
    assert done(owner, task).forget.samples == 5


@pytest.mark.parametrize(("rise", "unmoved"), [(0.0, True), (0.005, True), (0.02, False)])
def test_samples_with_unchanged_losses_are_not_forgotten(rise: float, unmoved: bool) -> None:
    """A few samples look unseen by chance; their own losses decide, and then their labels."""
    hidden = pb.Recognition(
        measure="auc", before=0.5, after=0.5, floor=0.5, margin=0.5, samples=1,
        loss_before=0.1, loss_after=0.1 + rise,
    )  # fmt: skip
    assert not Measured(hidden).recognises
    assert ("losses of the samples to forget are unchanged" in unshown(hidden)) is unmoved
    assert unshown(hidden), "a rise alone shows nothing"
    assert not unshown(pb.Recognition(measure="accuracy"))


@pytest.mark.parametrize("samples", [1, 2, 5, 16, 100, 5000])
def test_margins_shrink_to_the_tolerance_with_more_samples(samples: int) -> None:
    assert 0.05 < chance_margin(samples) <= chance_margin(max(1, samples - 1))
    assert 0 < auc_margin(samples, samples) <= auc_margin(1, 1) == 0.5


def test_classes_cleared_without_effect_do_not_count_as_forgotten(
    owner: PointsOwner,
) -> None:
    weak = make_method(scope="all", row_scoped=False, gauge=0.0, bound=1 - 1e-9, lam=1e30)
    first = done(owner, make_task(owner, ["m"], collect(owner, "m", ["cat"], weak), weak, "one"))
    assert first.outcome == pb.OUTCOME_INEFFECTIVE
    nothing = make_method(alpha=1e30, scope="all", row_scoped=False)
    packet = collect(owner, "m", ["cat"], nothing)
    owner.lose_data()  # now nothing can be measured
    second = done(owner, make_task(owner, [first.successor.id], packet, nothing, "two"))
    assert second.outcome == pb.OUTCOME_INEFFECTIVE
    assert not second.cleared_before


def ask_for_sample(owner: PointsOwner, model: str, request_id: str) -> pb.ModelResult:
    """Ask to forget one sample of `m`, with dampening of negligible effect."""
    method = make_method(
        scope="all", row_scoped=False, gauge=0.0, bound=1 - 1e-9, lam=1e30, alpha=0.1
    )
    root = samples_root("m", owner.store.root, ["cat-3"])
    (answer,) = forget_fishers(
        owner, pb.FisherTask(request_id=request_id, roots=[root], method=method.to_proto())
    ).roots
    task = make_task(owner, [model], answer.packets[0], method, request_id)
    if model.split("~")[0] == "m":
        task.models[0].samples.extend(root.samples)
        task.models[0].sample_salt = root.sample_salt
    else:
        task.roots.append(root)
    return done(owner, task)


def test_samples_are_measured_without_unseen_ones(owner: PointsOwner) -> None:
    owner.evaluates = False
    first = ask_for_sample(owner, "m", "one")
    assert (first.forget.measure, first.forget.source) == ("auc", "training")
    assert first.outcome == pb.OUTCOME_INEFFECTIVE
    assert "the losses of the samples to forget are unchanged" in first.error


def test_asking_again_does_not_make_samples_forgotten(tmp_path: Path) -> None:
    class Remembering(PointsOwner):
        """An owner with a successor's data under the parent's id."""

        def sample_ids(self, record: ModelRecord) -> list[str]:
            return super().sample_ids(self.store.record("m"))

        def split_training_data(
            self, record: ModelRecord, samples: Sequence[str]
        ) -> tuple[Batches, Batches]:
            return super().split_training_data(self.store.record("m"), samples)

    with Remembering(tmp_path / "anna", "anna", tuning=False) as owner:
        owner.train("m", LABELS, 1)
        register(owner, pb.RegisterTask(scope="all"))
        owner.evaluates = False
        first = ask_for_sample(owner, "m", "one")
        again = ask_for_sample(owner, first.successor.id, "two")
    assert again.outcome == pb.OUTCOME_INEFFECTIVE, "it is not more forgotten by being asked again"
    assert not again.cleared_before


def test_samples_of_a_root_measure_a_descendant_without_data(owner: PointsOwner) -> None:
    record = replace(owner.store.record("m"), id="child", provenance=None, fisher_digest="")
    summary, structure = owner.store.fishers("m"), owner.store.structure("m")
    assert summary is not None
    assert structure is not None
    owner.store.add(record, owner.store.weights("m"), *summary)
    owner.store.set_structure("child", structure)
    owner.evaluates = False
    found = ask_for_sample(owner, "child", "one")
    assert found.forget.source == "training"
    assert found.outcome == pb.OUTCOME_INEFFECTIVE


def test_an_unchanged_selection_is_ineffective_without_data(
    owner: PointsOwner,
) -> None:
    # A factor of 1: values are selected, but do not change.
    method = make_method(scope="all", row_scoped=False, gauge=0.0, lam=1e30)
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], method), method)
    owner.lose_data()
    before = files_of(owner.store.root)
    result = done(owner, task)
    assert sum(sum(one.rows) for one in result.selections) > 0
    assert result.outcome == pb.OUTCOME_INEFFECTIVE
    assert "values were selected, and none changed" in result.error
    assert files_of(owner.store.root) == before


@pytest.mark.parametrize(
    ("auc", "samples", "words"),
    [
        (0.9, 40, "of the 40 samples to forget are smaller than"),
        (0.463, 40, "of the 40 samples to forget are not smaller, beyond chance, than"),
        (0.55, 1, "of the 1 sample to forget are not smaller, beyond chance, than"),
    ],
)
def test_losses_are_called_smaller_only_where_they_are_beyond_chance(
    auc: float, samples: int, words: str
) -> None:
    found = pb.Recognition(
        measure="auc", before=auc, after=auc, floor=0.5, margin=auc_margin(samples, 40),
        samples=samples, source="evaluation",
    )  # fmt: skip
    reason = recognised(Measured(found))
    assert f"the losses {words} those of unseen evaluation samples of their classes" in reason
    assert f"AUC of {auc:.3f}" in reason


def test_what_cost_too_much_is_asked_for_again_in_the_words_of_its_mechanism() -> None:
    assert "a higher alpha or a narrower scope" in gentler_ways(by_changes=False)
    changed = gentler_ways(by_changes=True)
    assert changed == "ask again with another root method or more steps of repair, or retrain it"
