"""Owners of heads with very many classes: summaries by rows, stored, released and used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.store.objects import Objects, fishers_digest
from disinherit.common.fisher import summation
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.packets import decode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, collect, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

Opener = Callable[[str], PointsOwner]


@pytest.fixture
def open_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Open the same owner with a registered summary, in full or by rows."""

    def opened(kind: str) -> PointsOwner:
        monkeypatch.setattr(summation, "WHOLE", 0 if kind == "rows" else 2**24)
        owner = PointsOwner(tmp_path / kind, "anna", tuning=False)
        owner.train("m", ("cat", "owl", "yak"), 1)
        register(owner, pb.RegisterTask(scope="head"))
        stored = owner.store.fishers("m")
        assert stored is not None
        assert stored[0].by_rows == (kind == "rows")
        return owner

    return opened


def unlearned(owner: PointsOwner, classes: list[str], method: Method) -> pb.ModelResult:
    packet = collect(owner, "m", classes, method)
    (result,) = unlearn(owner, make_task(owner, ["m"], packet, method)).models
    # The changes are compared here, not the forgetting.
    assert result.outcome in (pb.OUTCOME_APPLIED, pb.OUTCOME_INEFFECTIVE), result.error
    return result


@pytest.mark.parametrize("classes", [["yak"], ["cat", "yak"]])
@pytest.mark.parametrize("scope", ["head", "all"])
def test_class_request_gives_the_same_result_from_summaries_by_rows(
    open_owner: Opener, classes: list[str], scope: str
) -> None:
    weights: list[dict[str, Tensor]] = []
    for kind in ("full", "rows"):
        owner = open_owner(kind)
        register(owner, pb.RegisterTask(scope=scope))
        owner.keeps_data = False
        result = unlearned(owner, classes, make_method(scope=scope, rescale=True))
        assert sum(sum(one.rows) for one in result.selections) > 0
        weights.append(owner.store.weights(result.successor.id))
        before = owner.store.fishers("m")
        after = owner.store.fishers(result.successor.id)
        assert before is not None
        assert after is not None
        gone = [LABELS.index(name) for name in classes]
        assert after[0].counts[gone].tolist() == [0] * len(gone)
        places = torch.isin(after[0].classes, torch.tensor(gone))
        assert all(not value[places].any() for value in after[0].sums.values())
        assert result.successor.fisher_digest == fishers_digest(before[0].without(gone))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (["yak"], {"row_scoped": False}),
        (["cat", "yak"], {"row_scoped": False}),
        (["cat", "yak"], {"scope": "2.weight"}),  # rows of a part of the head are dampened
    ],
)
def test_other_rows_of_a_class_are_computed_from_the_data(
    open_owner: Opener, classes: list[str], changes: dict[str, Any]
) -> None:
    weights = []
    method = make_method(**changes)
    for kind in ("full", "rows"):
        owner = open_owner(kind)
        result = unlearned(owner, classes, method)
        assert sum(sum(one.rows) for one in result.selections) > 0
        weights.append(owner.store.weights(result.successor.id))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-9, atol=1e-12)


def test_all_rows_of_a_class_without_the_data_are_refused_in_one_line(open_owner: Opener) -> None:
    owner = open_owner("rows")
    packet = collect(owner, "m", ["yak"], make_method())
    owner.keeps_data = False
    method = make_method(row_scoped=False)
    task = pb.FisherTask(
        request_id="r", roots=[pb.Root(model_id="m", classes=["yak"])], method=method.to_proto()
    )
    (root,) = forget_fishers(owner, task).roots
    (result,) = unlearn(owner, make_task(owner, ["m"], packet, method)).models
    for reason in (root.error, result.error):
        assert "only each class's own row, and its training data is gone" in reason
        assert "row_scoped" in reason
        assert "\n" not in reason
    assert result.outcome == pb.OUTCOME_FAILED


def test_total_fisher_information_needs_no_rows_of_single_classes(
    open_owner: Opener,
) -> None:
    values = []
    for kind in ("full", "rows"):
        owner = open_owner(kind)
        owner.keeps_data = False
        task = pb.FisherTask(
            request_id="r",
            roots=[pb.Root(model_id="m")],
            method=make_method(row_scoped=False).to_proto(),
        )
        (root,) = forget_fishers(owner, task).roots
        assert not root.error
        values.append(decode_fisher(root.packets[0]))
    for name in HEAD:
        torch.testing.assert_close(values[0][name], values[1][name], rtol=1e-9, atol=1e-15)


def test_second_request_uses_the_remaining_sums_by_rows(open_owner: Opener) -> None:
    owner = open_owner("rows")
    owner.keeps_data = False
    method = make_method()
    first = unlearned(owner, ["yak"], method).successor.id
    packet = collect(owner, first, ["cat"], method)
    (result,) = unlearn(owner, make_task(owner, [first], packet, method, "second")).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    task = pb.FisherTask(
        request_id="r", roots=[pb.Root(model_id=first, classes=["yak"])], method=method.to_proto()
    )
    (root,) = forget_fishers(owner, task).roots
    assert "no samples of yak" in root.error


def test_summaries_are_unchanged_after_reopening(tmp_path: Path) -> None:
    sums, counts = {"w": torch.rand(2, 4), "b": torch.rand(2)}, torch.tensor([3, 0, 2])
    kept = ClassFishers(
        sums,
        counts,
        torch.tensor([0, 2]),
        {"w": torch.rand(3, 4), "b": torch.rand(3)},
        torch.tensor([2, 5, 4]),
    )
    objects = Objects(tmp_path)
    digest = objects.put_fishers(kept)
    found = objects.get_fishers(digest, "summary")
    assert fishers_digest(found) == digest
    assert found.classes.tolist() == [0, 2]
    assert found.behind.tolist() == [2, 5, 4]
    assert all(found.sums[name].equal(kept.sums[name]) for name in sums)
    assert all(found.others[name].equal(kept.others[name]) for name in sums)


def test_a_summary_of_release_0_1_0_is_read_and_cleared_as_it_was(tmp_path: Path) -> None:
    """It has zeros for a class without samples, and no sums by rows; its digests stay."""
    values = torch.rand(3, 3, 4)
    values[1] = 0
    tensors = {"sum.w": values, "counts": torch.tensor([3, 0, 2])}
    objects = Objects(tmp_path)
    digest = weights_digest(tensors)
    objects.put(digest, tensors)
    found = objects.get_fishers(digest, "summary")
    assert fishers_digest(found) == digest
    assert found.each([2])[2].values["w"].equal(values[2] / 2)
    cleared = {"sum.w": values.clone(), "counts": torch.tensor([0, 0, 2])}
    cleared["sum.w"][0] = 0
    assert fishers_digest(found.without([0])) == weights_digest(cleared)
