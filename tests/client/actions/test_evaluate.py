"""Confusion counts by hand, previews that store nothing, and failures model by model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.evaluate import confusion_counts, evaluate, preview
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import Hungry, collect, files_of, make_method, make_task
from tests.support.owner import LABELS, PointsOwner, make_network, make_points

CPU = torch.device("cpu")


class PickyOwner(PointsOwner):
    """An owner that may have no evaluation data for a model."""

    without = ""

    def __enter__(self) -> Self:
        return self

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return None if record.id == self.without else super().evaluation_data(record)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PickyOwner]:
    with PickyOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        owner.train("n", LABELS[:3], 2, steps=20)
        yield owner


def counted(weights: dict[str, Tensor]) -> list[int]:
    network = make_network()
    network.load_state_dict(weights)
    inputs, targets = make_points("anna", "evaluation", LABELS, LABELS)
    counts = [0] * 16
    for sample, target in zip(inputs, targets.tolist(), strict=True):
        counts[4 * target + int(network(sample[None])[0].argmax())] += 1
    return counts


def test_counts_are_those_by_hand(owner: PickyOwner) -> None:
    reply = evaluate(owner, pb.EvaluateTask(model_ids=["n", "m"]))
    assert [evaluation.model_id for evaluation in reply.models] == ["n", "m"]
    for evaluation in reply.models:
        assert evaluation.error == ""
        assert list(evaluation.confusion) == counted(owner.store.weights(evaluation.model_id))
        assert sum(evaluation.confusion) == 64
        assert list(evaluation.labels) == list(LABELS)
        assert evaluation.digest == owner.store.record(evaluation.model_id).digest
    assert list(reply.models[0].confusion) != list(reply.models[1].confusion)


def test_failed_evaluation_does_not_affect_other_models(owner: PickyOwner) -> None:
    owner.train("o", LABELS, 3, steps=2)
    path = owner.store.root / "objects" / f"{owner.store.record('o').digest}.safetensors"
    path.write_bytes(b"garbage")
    owner.without = "n"
    unknown, damaged, blind, good = evaluate(
        owner, pb.EvaluateTask(model_ids=["nobody", "o", "n", "m"])
    ).models
    assert "got 'nobody', which is not there" in unknown.error
    assert damaged.error.startswith("Cannot load the weights of model 'o'.")
    assert blind.error == "Expected evaluation data for model 'n', but got none."
    assert blind.digest == owner.store.record("n").digest
    assert good.error == ""


def test_digests_are_read_back_without_counting(owner: PickyOwner) -> None:
    (owner.store.root / "objects" / f"{owner.store.record('n').digest}.safetensors").write_bytes(
        b"garbage"
    )
    task = pb.EvaluateTask(model_ids=["m", "n"], digests_only=True)
    good, damaged = evaluate(owner, task).models
    assert good == pb.Evaluation(model_id="m", digest=owner.store.record("m").digest)
    assert damaged.error.startswith("Cannot load the weights of model 'n'.")
    assert damaged.digest == ""


def test_a_preview_is_what_unlearning_gives_and_stores_nothing(owner: PickyOwner) -> None:
    method = make_method(alpha=None, gauge=None)
    owner.train("k", LABELS[:3], 3, start=[owner.store.weights("m")])
    task = make_task(owner, ["m", "k"], collect(owner, "m", ["cat"], method), method)
    task.models.append(pb.ModelTask(model_id="nobody"))
    before = files_of(owner.store.root)
    first, second, unknown = preview(owner, task).models
    assert files_of(owner.store.root) == before
    assert "got 'nobody'" in unknown.error
    unlearn(owner, task)
    after = evaluate(owner, pb.EvaluateTask(model_ids=["m~forget", "k~forget"])).models
    for expected, found in zip((first, second), after, strict=True):
        assert list(found.confusion) == list(expected.confusion)
        assert found.digest == expected.digest
    assert sum(first.confusion[:1]) == 0  # no cat is classified as a cat any more
    assert list(first.confusion) != counted(owner.store.weights("m"))


def test_a_preview_of_other_weights_is_refused(owner: PickyOwner) -> None:
    task = make_task(owner, ["n"], collect(owner, "m", ["cat"], make_method()), make_method())
    task.models[0].digest = "00"
    (evaluation,) = preview(owner, task).models
    assert "model 'n' with digest '00', but the owner holds" in evaluation.error


def batches(targets: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Inputs that `nn.Identity` classifies as 0, 1, 2, 0, 1, 2, ..."""
    inputs = torch.eye(3)[torch.arange(len(targets)) % 3]
    return list(zip(inputs.split(4), torch.tensor(targets).split(4), strict=True))


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_counts_are_equal_after_out_of_memory(limit: int) -> None:
    model = Hungry(nn.Identity(), limit)
    model.train()
    counts = confusion_counts(model, batches([0, 0, 0, 2, 2, 2, 1]), 3, CPU)
    assert counts.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
    assert counts.dtype == torch.int64
    assert max(model.sizes) <= limit
    assert all(model.inferring)
    assert not model.training


def test_empty_data_gives_zero_counts() -> None:
    empty = [(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))]
    assert confusion_counts(nn.Identity(), empty, 3, CPU).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        ([0, 3], 3, r"indices in \[0, 3\), but got 3"),
        ([0, -1], 3, r"indices in \[0, 3\), but got -1"),
        ([0, 1], 2, r"logits \[2, 2\], one per class, but the model returned \[2, 3\]"),
        ([0, 1], 4, r"logits \[2, 4\], one per class, but the model returned \[2, 3\]"),
    ],
)
def test_invalid_outputs_and_targets_are_refused(
    targets: list[int], classes: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        confusion_counts(nn.Identity(), batches(targets), classes, CPU)
