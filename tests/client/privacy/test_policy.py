"""Releases of an owner under its own policy and its agent's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.handlers import handlers
from disinherit.client.privacy.policy import OPEN, ReleasePolicy, policy_of, read_policy
from disinherit.common.encodings import Encoding
from disinherit.common.errors import InputError
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import World, build, make_request
from tests.support.client_tasks import make_method
from tests.support.owner import PointsOwner, samples_root

CLASSES = ("cat", "dog")


class StrictOwner(PointsOwner):
    """An owner with a policy of its own."""

    release_policy = OPEN


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[StrictOwner]:
    owner = StrictOwner(tmp_path / "anna", "anna")
    with owner:
        owner.train("m", CLASSES, created_us=1)
        yield owner


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"encoding": "full"}, "an Encoding as encoding in a release policy, but got 'full'"),
        ({"min_forget_samples": 2.5}, "a whole number as min_forget_samples .* but got 2.5"),
        ({"clip_norm": "1"}, "a number as clip_norm in a release policy, but got '1'"),
        ({"max_sample_share": True}, "a number as max_sample_share .* but got True"),
    ],
)
def test_a_policy_of_values_of_other_types_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ReleasePolicy(**values)


def fisher(owner: PointsOwner, root: pb.Root, policy: ReleasePolicy = OPEN) -> pb.RootFisher:
    task = pb.FisherTask(request_id="q", roots=[root], method=make_method().to_proto())
    (answer,) = forget_fishers(owner, task, policy).roots
    return answer


def by_samples(owner: PointsOwner, count: int) -> pb.Root:
    return samples_root("m", owner.store.root, [f"cat-{i}" for i in range(count)])


def test_too_few_samples_are_withheld_and_enough_are_not(owner: StrictOwner) -> None:
    policy = ReleasePolicy(min_forget_samples=5)
    withheld = fisher(owner, by_samples(owner, 4), policy)
    assert withheld.withheld
    assert not withheld.packets
    assert "at least 5 samples" in withheld.error
    released = fisher(owner, by_samples(owner, 5), policy)
    assert not released.error
    assert not released.withheld
    assert released.packets[0].samples == 5


@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog"], []])
def test_classes_and_clients_count_too(classes: Sequence[str], owner: StrictOwner) -> None:
    """Each of two classes has 24 samples; without classes, a client's whole contribution."""
    root = pb.Root(model_id="m", classes=classes)
    behind = 24 if classes else 48
    assert not fisher(owner, root, ReleasePolicy(behind)).error
    assert fisher(owner, root, ReleasePolicy(behind + 1)).withheld


def test_an_impossible_release_is_not_reported_as_withheld(owner: StrictOwner) -> None:
    answer = fisher(owner, pb.Root(model_id="m", classes=["owl"]), ReleasePolicy(5))
    assert "no samples of owl" in answer.error
    assert not answer.withheld


def test_the_stricter_of_two_policies_holds(owner: StrictOwner, tmp_path: Path) -> None:
    assert policy_of(PointsOwner(tmp_path, "ben")) == OPEN
    owner.release_policy = ReleasePolicy(5, Encoding.BFLOAT16)
    try:
        assert fisher(owner, by_samples(owner, 4)).withheld
        assert fisher(owner, by_samples(owner, 9), ReleasePolicy(10)).withheld
        task = pb.FisherTask(roots=[by_samples(owner, 4)], method=make_method().to_proto())
        loose = handlers(ReleasePolicy(1))["query.fisher"](owner, task)
        assert isinstance(loose, pb.FisherReply)
        assert loose.roots[0].withheld
        (packet,) = fisher(owner, by_samples(owner, 9)).packets
        assert packet.encoding == pb.FISHER_ENCODING_BFLOAT16
        (packet,) = fisher(owner, by_samples(owner, 9), ReleasePolicy(1, Encoding.LOG8)).packets
        assert packet.encoding == pb.FISHER_ENCODING_LOG8
    finally:
        owner.release_policy = OPEN


def test_coverage_reports_withheld_fisher_information(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path)
    monkeypatch.setattr(PointsOwner, "release_policy", ReleasePolicy(25), raising=False)
    with World(tmp_path) as world:
        before = world.files()
        world.coordinator.submit(make_request({"r1": ("cat",)}))
        assert world.coordinator.run("q").outcome == "failed"
        covered = coverage_of(world.store, "q", 100, "").models
        assert {one.state for one in covered} == {TaskState.FAILED}
        for one in covered:
            words = "upstream root r1: withheld by owner anna"
            assert words in one.reason
            assert (f"{words}: Expected at least 25" in one.reason) is (one.owner == "anna")
        assert world.files() == before
        monkeypatch.setattr(PointsOwner, "release_policy", ReleasePolicy(24))
        assert world.coordinator.run("q").outcome == "complete"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"min_forget_samples": 0}, "at least 1 as min_forget_samples, but got 0"),
        ({"min_forget_samples": True}, "min_forget_samples"),
        ({"min_forget_samples": 2.5}, "2.5"),
        ({"delta_min_samples": 0}, "at least 1 as delta_min_samples, but got 0"),
        ({"delta_root_methods": "replay"}, "delta_root_methods"),
        ({"encoding": "zip"}, "'zip'"),
        ({"min_samples": 3}, "min_samples"),
        ("open", "a table"),
    ],
)
def test_an_invalid_policy_is_refused(values: object, words: str) -> None:
    with pytest.raises(InputError, match="agent.toml") as refused:
        read_policy(values, "agent.toml")
    assert words in str(refused.value)


def test_conditions_on_changes_only_become_stricter() -> None:
    one = ReleasePolicy(delta_min_samples=5, delta_root_methods=("replay", "ekfac"))
    assert one.stricter(OPEN) == OPEN.stricter(one)
    both = one.stricter(ReleasePolicy(delta_min_samples=9, delta_root_methods=("replay",)))
    assert both == ReleasePolicy(delta_min_samples=9, delta_root_methods=("replay",))
    assert not ReleasePolicy(release_deltas=False).stricter(OPEN).release_deltas
    assert not one.stricter(ReleasePolicy(delta_root_methods=("finetune",))).release_deltas
