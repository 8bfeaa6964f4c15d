"""The change of a root leaves its owner only as the release policy allows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.handlers import handlers
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.client.privacy.release_ledger import LEDGER_FILE
from disinherit.common.deltas.packets import PackedDelta
from disinherit.common.method import Method
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import World, build, make_request
from tests.support.owner import PointsOwner, samples_root, trained_on
from tests.support.retraining_owner import RetrainingOwner

DIGEST = "ab" * 32


class StrictOwner(RetrainingOwner):
    """An owner with a policy of its own."""

    release_policy = OPEN


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[StrictOwner]:
    with StrictOwner(tmp_path / "anna") as owner:
        owner.train("m", ("cat", "dog"), created_us=1)
        yield owner


def task_of(owner: StrictOwner, ids: Sequence[str], root_method: str = "replay") -> pb.FisherTask:
    method = Method(mechanism="delta", scope="all", root_method=root_method)
    return pb.FisherTask(
        request_id=f"without {' '.join(ids)} by {root_method}",
        request_digest=DIGEST,
        roots=[samples_root("m", owner.store.root, list(ids))],
        method=method.to_proto(),
    )


def cats(first: int, last: int) -> list[str]:
    return [f"cat-{index}" for index in range(first, last)]


def change(
    owner: StrictOwner, ids: Sequence[str], policy: ReleasePolicy, root_method: str = "replay"
) -> pb.RootFisher:
    (answer,) = root_deltas(owner, task_of(owner, ids, root_method), policy).roots
    return answer


def check_no_values(withheld: pb.RootFisher) -> None:
    """The root is unlearned all the same, and digests are all that is sent of it."""
    (packet,) = withheld.packets
    assert PackedDelta.from_packet(packet).values == {}
    assert packet.delta.after != packet.delta.before


@pytest.mark.parametrize(
    "policy",
    [
        ReleasePolicy(delta_min_samples=5),
        ReleasePolicy(5),
        ReleasePolicy(5, delta_min_samples=2),
        ReleasePolicy(2, delta_min_samples=5),
    ],
)
def test_a_change_of_too_few_samples_is_withheld(owner: StrictOwner, policy: ReleasePolicy) -> None:
    withheld = change(owner, cats(0, 4), policy)
    assert withheld.withheld
    check_no_values(withheld)
    assert "at least 5 samples" in withheld.error
    assert not (owner.store.root / LEDGER_FILE).exists()  # nothing was released
    released = change(owner, cats(0, 5), policy)
    assert not released.error
    assert released.packets[0].samples == 5


def test_fisher_information_needs_no_more_samples_than_it_did(owner: StrictOwner) -> None:
    policy = ReleasePolicy(delta_min_samples=5)
    task = task_of(owner, cats(0, 4))
    task.method.CopyFrom(Method(mechanism="fisher").to_proto())
    (answer,) = forget_fishers(owner, task, policy).roots
    assert not answer.error


def test_changes_that_differ_by_few_samples_are_not_both_released(owner: StrictOwner) -> None:
    """Their difference would be the change by these."""
    policy = ReleasePolicy(delta_min_samples=5)
    assert not change(owner, cats(0, 10), policy).error
    refused = change(owner, cats(0, 11), policy)
    assert refused.withheld
    assert "separates no fewer than 5 samples of model 'm'" in refused.error
    assert not change(owner, cats(0, 10), policy).error
    assert not change(owner, cats(0, 15), policy).error


def test_fisher_information_of_nearly_the_samples_of_a_change_is_withheld(
    owner: StrictOwner,
) -> None:
    policy = ReleasePolicy(5)
    assert not change(owner, cats(0, 10), policy).error
    task = task_of(owner, cats(0, 9))
    task.method.CopyFrom(Method(mechanism="fisher").to_proto())
    (answer,) = forget_fishers(owner, task, policy).roots
    assert answer.withheld


def test_changes_can_be_held_back_altogether(owner: StrictOwner) -> None:
    refused = change(owner, cats(0, 20), ReleasePolicy(release_deltas=False))
    assert refused.withheld
    assert "set release_deltas to false" in refused.error
    check_no_values(refused)


def test_only_changes_by_listed_root_methods_are_released(owner: StrictOwner) -> None:
    policy = ReleasePolicy(5, delta_root_methods=("replay",))
    refused = change(owner, cats(0, 9), policy, "neggrad+")
    assert refused.withheld
    assert "by replay, by its owner's delta_root_methods, but it is by neggrad+" in refused.error
    assert not (owner.store.root / LEDGER_FILE).exists()  # nothing was released
    assert not change(owner, cats(0, 8), policy, "replay").error


def test_an_owner_and_its_agent_both_have_a_say(owner: StrictOwner) -> None:
    owner.release_policy = ReleasePolicy(delta_min_samples=5)
    try:
        loose = handlers(ReleasePolicy(1))["query.delta"](owner, task_of(owner, cats(0, 4)))
        assert isinstance(loose, pb.FisherReply)
        assert loose.roots[0].withheld
        assert change(owner, cats(0, 9), ReleasePolicy(delta_min_samples=10)).withheld
    finally:
        owner.release_policy = OPEN


def test_coverage_reports_a_withheld_change_and_no_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path)
    policy = ReleasePolicy(delta_min_samples=1000)
    monkeypatch.setattr(PointsOwner, "release_policy", policy, raising=False)
    with World(tmp_path) as world:
        before = world.files()
        r1 = world.store.graph().model("r1")
        classes = trained_on(r1)
        world.coordinator.submit(make_request({"r1": classes}, scope="all", mechanism="delta"))
        assert world.coordinator.run("q").outcome == "failed"
        for one in coverage_of(world.store, "q", 100, "").models:
            assert one.state == TaskState.FAILED
            assert "no change from upstream root r1: withheld by owner anna" in one.reason
        assert world.files() == before


def test_where_the_root_cannot_be_unlearned_either_both_reasons_are_given(
    owner: StrictOwner,
) -> None:
    owner.kept = False
    refused = change(owner, cats(0, 4), ReleasePolicy(5))
    assert refused.withheld
    assert not refused.packets
    assert "at least 5 samples" in refused.error
    assert "The root cannot be unlearned, either: " in refused.error
    assert "What model 'm' was trained from is not kept." in refused.error


@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog"]])
def test_a_class_never_takes_all_other_classes_with_it(
    owner: StrictOwner, classes: list[str]
) -> None:
    task = task_of(owner, [])
    task.roots[0].CopyFrom(pb.Root(model_id="m", classes=classes))
    (answer,) = root_deltas(owner, task).roots
    if classes == ["cat"]:
        assert "got cat of a model that was trained on dog, too" in answer.error
        assert owner.asked == []
    else:
        assert answer.packets[0].samples == 48
