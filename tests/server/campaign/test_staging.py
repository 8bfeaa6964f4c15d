"""A staged roll-out with real owners: canaries, waves, gates, and decisions of people."""

from pathlib import Path
from typing import Any

import pytest

from disinherit.common.audit.export import read_entry
from disinherit.common.audit.gaps import GapKind
from disinherit.common.errors import CampaignError, RequestError
from disinherit.common.graph.records import Inheritance, InheritanceKind
from disinherit.server.now import now_us
from disinherit.server.reports.report import coverage_of, report_of
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import AFFECTED, OWNERS, World, broken, copy, gone, lying, make_request
from tests.support.owner import LABELS, PointsOwner

E, S, T = CampaignEvent, CampaignState, TaskState


def staged(**thresholds: Any) -> pb.UnlearningRequest:
    """Cleo first, then one owner (anna or ben), then the other."""
    request = make_request(request_id="staged")
    roll_out = pb.RollOut(canaries=["cleo"], waves=[pb.Wave(count=1)], **thresholds)
    request.roll_out.CopyFrom(roll_out)
    return request


def submit(world: World, **thresholds: Any) -> dict[str, int]:
    """Submit a staged request, and return the wave of every owner."""
    for other in world.store.requests():  # which would be carried out first
        world.store.transition(other, E.ABORT)
    world.coordinator.submit(staged(**thresholds))
    return {task.owner: task.wave for task in world.store.tasks("staged").values()}


def told_to_apply(world: World) -> list[str]:
    return [owner for owner, action in world.transport.actions() if action == "train.unlearn"]


def loses(points: float) -> Any:
    """The owner says that it lost so much."""

    def change(reply: pb.UnlearnReply) -> None:
        for model in reply.models:
            model.retain_after = model.retain_before - points / 100

    return lying(change)


def unmeasured(reply: pb.UnlearnReply) -> None:
    for model in reply.models:
        model.ClearField("retain_before")


def digests(world: World) -> dict[str, dict[str, str]]:
    """Owner -> its active versions, by what is in its store."""
    found = {}
    for name in sorted(set(OWNERS.values())):
        with PointsOwner(world.root / name, name) as owner:
            active = [r for r in owner.store.records() if r.status.value == "active"]
            found[name] = {record.id: record.digest for record in active}
    return found


def kinds(world: World, *wanted: str) -> list[str]:
    _, *lines = world.store.audit_lines("staged")
    said = [read_entry(line).event.kind for line in lines]
    return [kind for kind in said if kind in wanted]


def test_the_waves_go_out_one_after_the_other(world: World) -> None:
    waves = submit(world, max_retain_drop=100.0, max_error_rate=0.0)
    result = world.coordinator.run("staged")
    assert told_to_apply(world) == sorted(waves, key=lambda owner: waves[owner])
    assert result.outcome == "complete"
    assert sorted(result.changed) == sorted(AFFECTED)
    assert result.already_applied == ()
    assert world.store.campaign("staged").state is S.COMPLETE
    assert kinds(world, "wave_decided") == ["wave_decided"] * 2
    assert {one.model_id: one.wave for one in coverage_of(world.store, "staged").models} == {
        model: waves[OWNERS[model]] for model in AFFECTED
    }


def test_staged_campaign_ends_like_an_unstaged_one(
    world: World, built: Path, tmp_path: Path
) -> None:
    with copy(built, tmp_path / "at once") as other:
        other.coordinator.submit(make_request(request_id="staged"))
        other.coordinator.run("staged")
        expected = digests(other)
    submit(world)
    world.coordinator.run("staged")
    assert digests(world) == expected


def test_a_canary_that_loses_too_much_halts_the_campaign_and_nothing_else_is_touched(
    world: World,
) -> None:
    submit(world, max_retain_drop=2.0)
    world.transport.twists["cleo", "train.unlearn"] = loses(9.0)
    before = {name: path for name, path in world.files().items() if not name.startswith("cleo/")}
    result = world.coordinator.run("staged")

    assert result.outcome == "partial"
    assert told_to_apply(world) == ["cleo"]
    campaign = world.store.campaign("staged")
    assert campaign.state is S.HALTED
    assert "r3 lost 9.0 points of retain accuracy" in campaign.halt_reason
    assert world.states("staged") == {
        model: T.VERIFIED if model == "r3" else T.HALTED for model in AFFECTED
    }
    assert world.reason("r6", "staged") == campaign.halt_reason
    after = {name: path for name, path in world.files().items() if not name.startswith("cleo/")}
    assert after == before
    assert kinds(world, "wave_decided", "halt_decided", "halted") == [
        "halt_decided",
        *["halted"] * 4,
    ]
    with pytest.raises(CampaignError, match="to be running, but it is halted"):
        world.coordinator.run("staged")
    report = report_of(world.store, "staged")
    (gap,) = (gap for gap in report.gaps if gap.kind is GapKind.HALTED)
    assert gap.models == ("r1", "r2", "r4", "r6")


def test_a_retain_accuracy_that_nobody_measured_halts_it(world: World) -> None:
    submit(world, max_retain_drop=99.0)
    world.transport.twists["cleo", "train.unlearn"] = lying(unmeasured)
    world.coordinator.run("staged")
    campaign = world.store.campaign("staged")
    assert campaign.state is S.HALTED
    assert "the retain accuracy of r3 was not measured" in campaign.halt_reason


def test_failures_halt_it_and_keep_their_own_reason(world: World) -> None:
    submit(world, max_error_rate=0.5)
    world.transport.twists["cleo", "train.unlearn"] = broken
    world.coordinator.run("staged")
    assert "1 of its 1 models failed" in world.store.campaign("staged").halt_reason
    assert world.states("staged")["r3"] is T.FAILED
    assert world.reason("r3", "staged") == "owner cleo: disk on fire"


def test_a_person_may_let_a_halted_campaign_go_on(world: World) -> None:
    submit(world, max_retain_drop=2.0)
    world.transport.twists["cleo", "train.unlearn"] = loses(9.0)
    world.coordinator.run("staged")
    world.store.transition("staged", E.RESUME)
    assert world.store.campaign("staged").halt_reason == ""
    assert {s for m, s in world.states("staged").items() if m != "r3"} == {T.PENDING}
    world.transport.actions()
    world.coordinator.run("staged")
    assert "cleo" not in told_to_apply(world)
    assert world.store.campaign("staged").state is S.COMPLETE


def test_the_waves_that_begin_after_a_resumption_are_judged_again(world: World) -> None:
    waves = submit(world, max_retain_drop=2.0)
    second = min(set(waves) - {"cleo"}, key=lambda owner: waves[owner])
    for owner in ("cleo", second):
        world.transport.twists[owner, "train.unlearn"] = loses(9.0)
    world.coordinator.run("staged")
    world.store.transition("staged", E.RESUME)
    world.coordinator.run("staged")
    assert world.store.campaign("staged").state is S.HALTED
    assert "halted in wave 2 of 3" in world.store.campaign("staged").halt_reason
    assert {task.state for task in world.store.tasks("staged").values() if task.wave == 2} == {
        T.HALTED
    }


def test_a_halted_campaign_can_be_rolled_back_to_the_digests_of_before(world: World) -> None:
    before = digests(world)
    submit(world, max_retain_drop=2.0)
    world.transport.twists["cleo", "train.unlearn"] = loses(9.0)
    world.coordinator.run("staged")
    assert digests(world) != before
    world.store.roll_back("staged", reason="the canary lost too much")
    world.coordinator.run("staged")
    assert world.store.campaign("staged").state is S.ROLLED_BACK
    assert digests(world) == before


def test_a_halted_campaign_can_be_aborted(world: World) -> None:
    submit(world, max_error_rate=0.0)
    world.transport.twists["cleo", "train.unlearn"] = broken
    world.coordinator.run("staged")
    assert world.store.transition("staged", E.ABORT).state is S.ABORTED
    assert set(world.states("staged").values()) == {T.FAILED, T.HALTED}


def test_a_canary_that_is_away_is_waited_for_until_the_deadline(world: World) -> None:
    submit(world, max_error_rate=0.0)
    world.transport.twists["cleo", "train.unlearn"] = gone
    for _ in range(2):
        world.coordinator.run("staged")
    assert set(told_to_apply(world)) == {"cleo"}
    assert world.store.campaign("staged").state is S.RUNNING
    assert world.reason("r1", "staged").startswith("waits for wave ")
    world.store.transition("staged", E.PAUSE)
    world.store.transition("staged", E.RESUME, now_us() - 1)
    world.coordinator.run("staged")
    assert set(told_to_apply(world)) == {"cleo"}
    assert world.store.campaign("staged").state is S.PARTIAL
    world.transport.twists.clear()
    world.store.transition("staged", E.RESUME, 0)
    assert world.coordinator.run("staged").outcome == "complete"


def test_a_coordinator_that_dies_between_answer_and_verdict_judges_before_it_sends(
    world: World,
) -> None:
    submit(world, max_retain_drop=2.0)
    world.transport.twists["cleo", "train.unlearn"] = loses(9.0)

    def dies(*_: object) -> Any:
        raise KeyboardInterrupt

    world.transport.twists["cleo", "evaluate.panel"] = dies
    with pytest.raises(KeyboardInterrupt):
        world.coordinator.run("staged")
    world.transport.actions()
    with world.again() as again:
        again.coordinator.run("staged")
        assert again.transport.actions() == []
        assert again.store.campaign("staged").state is S.HALTED


def test_late_owner_joins_the_last_wave(world: World) -> None:
    submit(world)
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("staged")
    with PointsOwner(world.root / "dora", "dora") as dora:
        record = dora.train("late", LABELS, now_us(), start=[world.weights("r4")])
        world.store.add_model(record, [Inheritance("r4", "late", InheritanceKind.TRANSFER)])
    world.coordinator.run("staged")
    assert world.store.tasks("staged")["late"].wave == 2
    assert world.reason("late", "staged").startswith("waits for wave 3")


@pytest.mark.parametrize(
    ("roll_out", "message"),
    [
        (pb.RollOut(canaries=["zoe"]), "but got 'zoe'. Choose among anna, ben, cleo"),
        (pb.RollOut(waves=[pb.Wave(count=0)]), "but got 0"),
    ],
)
def test_invalid_roll_out_is_not_stored(world: World, roll_out: pb.RollOut, message: str) -> None:
    request = make_request(request_id="staged")
    request.roll_out.CopyFrom(roll_out)
    with pytest.raises(RequestError, match=message):
        world.coordinator.submit(request)
    assert "staged" not in world.store.requests()
