"""Classes that come back, classes that no data tells of, and kept classes that are lost."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.outcome import outcomes
from disinherit.client.outcome.class_counts import BeforeAndAfter, ClassCount, chance_margin
from disinherit.client.outcome.outcomes import recognised
from disinherit.client.outcome.recognition import Measured, measure
from disinherit.client.owner.owner import Batches, Owner
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

METHOD = make_method(gauge=3.0)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    with PointsOwner(tmp_path / "anna", "anna", tuning=False) as owner:
        owner.train("m", LABELS, 1)
        register(owner, pb.RegisterTask(scope="all"))
        yield owner


def forget(owner: PointsOwner, model: str, *classes: str) -> pb.ModelResult:
    """Ask for classes at `m`, in it or in a version that was made of it."""
    packet = collect(owner, "m", classes, METHOD)
    (result,) = unlearn(
        owner, make_task(owner, [model], packet, METHOD, f"forget-{'-'.join(classes)}")
    ).models
    return result


def test_a_model_keeps_one_class(owner: PointsOwner) -> None:
    """Without a kept class all logits are zero, so that every sample is of the first class."""
    model = "m"
    for name in LABELS[:3]:
        result = forget(owner, model, name)
        assert result.outcome == pb.OUTCOME_APPLIED, result.error
        model = result.successor.id
    before = files_of(owner.store.root)
    for classes in ((LABELS[3],), LABELS[2:]):
        result = forget(owner, model, *classes)
        assert (result.outcome, result.successor.id) == (pb.OUTCOME_INEFFECTIVE, "")
        assert "no class of it would be kept: retire the model instead" in result.error
        assert f"earlier requests cleared {LABELS[0]!r}" in result.error
    assert files_of(owner.store.root) == before
    again = forget(owner, model, LABELS[1])
    assert (again.outcome, again.cleared_before) == (pb.OUTCOME_APPLIED, True)


def test_a_model_without_data_keeps_one_class(owner: PointsOwner) -> None:
    model = "m"
    owner.lose_data()
    for name in LABELS[:3]:
        model = forget(owner, model, name).successor.id
    result = forget(owner, model, LABELS[3])
    assert (result.outcome, result.successor.id) == (pb.OUTCOME_INEFFECTIVE, "")
    assert "retire the model instead" in result.error


class Names(nn.Module):
    """A model that names the class at a place of its one weight, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.eye(len(LABELS)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table[inputs[:, 0].long()]


def naming(*names: int) -> dict[str, Tensor]:
    """The weights that name class `names[i]` for samples of class `i`."""
    return {"table": torch.eye(len(LABELS))[list(names)]}


def split(
    count: int, classes: Sequence[int] = range(4), shift: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Samples of classes, all of one value, with labels that are shifted by some places."""
    values = torch.tensor(classes).repeat_interleave(count)
    return [(values[:, None].float(), (values + shift) % len(LABELS))]


class Splits:
    """An owner with the splits that a test gives it."""

    device = torch.device("cpu")

    def __init__(self, **splits: Batches) -> None:
        self.splits = splits
        self.store = SimpleNamespace(made_by=lambda _: ())

    def network(self, record: ModelRecord) -> nn.Module:
        return Names()

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return self.splits.get("evaluation")

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        return self.splits.get("tuning")

    def training_data(self, record: ModelRecord) -> Batches | None:
        return self.splits.get("training")


def measured(owner: Splits, after: dict[str, Tensor], *forgotten: int) -> Measured:
    record = ModelRecord("m", "anna", "", LABELS, "ab" * 32, 1)
    subject = BeforeAndAfter(record, naming(0, 1, 2, 3), after, forgotten)
    return measure(cast("Owner", owner), subject)


@pytest.mark.parametrize("source", ["tuning", "training"])
def test_a_split_on_which_nothing_was_recognised_cannot_tell(source: str) -> None:
    """Evaluation data with wrong labels: 0 % before and 0 % after, of a model that knows all."""
    wrong = split(10, shift=1)
    owner = Splits(evaluation=wrong, **{source: split(20)})
    found = measured(owner, naming(0, 1, 2, 3), 0)
    assert found.recognises
    assert found.forget is not None
    assert (found.forget.source, found.forget.before, found.forget.after) == (source, 1.0, 1.0)
    gone = measured(owner, naming(1, 1, 2, 3), 0)
    assert not gone.recognises
    assert gone.forget is not None
    assert (gone.forget.source, gone.forget.after) == (source, 0.0)


def test_a_class_that_no_split_shows_to_be_known_is_not_measured() -> None:
    """Accuracy 0 before and after proves nothing: the labels may be wrong."""
    for after in (naming(0, 1, 2, 3), naming(1, 1, 2, 3)):
        found = measured(Splits(evaluation=split(10, shift=1)), after, 0)
        assert (found.forget, found.recognises, found.undecided) == (None, False, (LABELS[0],))


def test_a_split_on_which_a_class_is_still_recognised_decides() -> None:
    """Few evaluation samples that are no longer named, and others that tell."""
    one = split(1, [0]) + split(10, [1, 2, 3])
    half = [(torch.tensor([0.0, 1.0]).repeat_interleave(20)[:, None], torch.zeros(40).long())]
    for evaluation, source in ((one, "training"), (one, "tuning"), (split(10), "tuning")):
        owner = Splits(evaluation=evaluation, **{source: half})
        found = measured(owner, naming(1, 0, 2, 3), 0)
        assert found.recognises
        assert found.forget is not None
        assert (found.forget.source, found.forget.after) == (source, 0.5)


@pytest.mark.parametrize(("count", "source"), [(1, "training"), (5, "training"), (6, "evaluation")])
def test_enough_samples_decide_where_a_class_is_recognised_no_more(count: int, source: str) -> None:
    owner = Splits(evaluation=split(count), training=split(20))
    found = measured(owner, naming(1, 1, 2, 3), 0)
    assert found.forget is not None
    assert (found.forget.source, found.forget.before, found.forget.after) == (source, 1, 0)


def test_each_class_is_measured_where_it_is_told() -> None:
    owner = Splits(evaluation=split(10, [0, 2, 3]), training=split(10))
    found = measured(owner, naming(2, 1, 2, 3), 0, 1)
    assert (found.worst, found.recognises) == (LABELS[1], True)
    assert found.forget is not None
    assert found.forget.source == "training"


def test_a_kept_class_that_is_lost_is_found_beside_a_good_mean() -> None:
    owner = Splits(evaluation=split(10, [0, 1, 2]) + split(200, [3]))
    found = measured(owner, naming(1, 1, 3, 3), 0)
    assert found.retain_drop < 5
    assert list(found.destroyed) == [LABELS[2]]
    assert measured(owner, naming(1, 1, 2, 3), 0).destroyed == {}
    assert measured(owner, naming(1, 1, 3, 3)).destroyed == {}, "samples may be all of a class"
    few = Splits(evaluation=split(4, [0, 1, 2]) + split(200, [3]))
    assert measured(few, naming(1, 1, 3, 3), 0).destroyed == {}, "four may be lost by chance"


@pytest.mark.parametrize("evaluation", [split(50, [0, 1, 3]), split(50, shift=1)])
def test_a_kept_class_that_only_training_data_shows_is_found(evaluation: Batches) -> None:
    owner = Splits(evaluation=evaluation, training=split(10))
    assert list(measured(owner, naming(1, 1, 3, 3), 0).destroyed) == [LABELS[2]]


@pytest.mark.parametrize("source", ["evaluation", "training"])
def test_a_class_that_is_lost_with_samples_is_found_if_others_of_it_are_kept(source: str) -> None:
    owner = cast("Owner", Splits(**{source: split(20)}))
    record = ModelRecord("m", "anna", "", LABELS, "ab" * 32, 1)
    for kept, lost in (
        (split(20), [LABELS[0], LABELS[2]]),
        (split(20, [1, 2, 3]), [LABELS[2]]),
        (split(20, [1, 3]) + split(2, [2]), []),
    ):
        samples = split(15, [0])
        after = naming(1, 1, 3, 3)
        subject = BeforeAndAfter(record, naming(0, 1, 2, 3), after, (), samples, kept)
        assert list(measure(owner, subject).destroyed) == lost


def test_a_class_of_a_descendants_own_training_is_lost_with_the_samples_of_another() -> None:
    owner = Splits(evaluation=split(20), training=split(20, [1, 2]))
    assert list(measured(owner, naming(1, 1, 3, 3)).destroyed) == [LABELS[2]]


@pytest.mark.parametrize(("bound", "harmful"), [(None, True), (30.0, True), (100.0, False)])
def test_a_lost_class_is_harmful_unless_any_loss_is_taken(
    owner: PointsOwner, monkeypatch: pytest.MonkeyPatch, bound: float | None, harmful: bool
) -> None:
    lost = {"owl": ClassCount(16, 16, 0)}
    found = Measured(None, "", 1.0, 0.9, 100, destroyed=lost)
    monkeypatch.setattr(outcomes, "measure", lambda owner, subject: found)
    task = make_task(owner, ["m"], collect(owner, "m", ["cat"], METHOD), METHOD)
    if bound is not None:
        task.max_retain_drop = bound
    before = files_of(owner.store.root)
    (result,) = unlearn(owner, task).models
    assert (result.outcome == pb.OUTCOME_HARMFUL) is harmful, result.error
    assert (files_of(owner.store.root) == before) is harmful
    if harmful:
        assert "would recognise 0.0% of 16 samples of class 'owl'" in result.error
        assert "100.0%" in result.error


def test_a_reason_says_only_what_was_measured() -> None:
    found = pb.Recognition(
        measure="accuracy", before=1.0, after=0.5, floor=0.0, margin=chance_margin(20),
        samples=20, source="evaluation",
    )  # fmt: skip
    reason = recognised(Measured(found, "cat"))
    assert "names 50.0% of 20 evaluation samples of class 'cat' (100.0% before;" in reason
    assert "reset" not in reason
