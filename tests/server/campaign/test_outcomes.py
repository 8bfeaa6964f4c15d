"""Outcomes: an owner reports what it did, and the coordinator judges the result."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disinherit.common.audit.export import read_entry
from disinherit.common.audit.gaps import GapKind
from disinherit.common.wire.roll_out import RollOut
from disinherit.server.planning.gates import judge
from disinherit.server.reports.report import coverage_of, report_of
from disinherit.server.states import CampaignEvent, CampaignState, Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import World, lying
from tests.support.delta_world import copy_delta, delta_request


@pytest.fixture
def world(submitted: World) -> World:
    return submitted


def nothing_selected(reply: pb.UnlearnReply) -> None:
    for result in reply.models:
        for selection in result.selections:
            selection.rows[:] = [0] * len(selection.rows)


def still_recognised(reply: pb.UnlearnReply) -> None:
    for result in reply.models:
        result.forget.after = 0.9


def gave_up(reply: pb.UnlearnReply) -> None:
    for result in reply.models:
        result.outcome, result.error = pb.OUTCOME_HARMFUL, "too much would be lost"
        result.ClearField("successor")


@pytest.mark.parametrize(
    ("lie", "words"),
    [(nothing_selected, "selected nothing"), (still_recognised, "by its owner's own figures")],
)
def test_an_applied_model_that_has_not_forgotten_is_ineffective(
    world: World, lie: Callable[[pb.UnlearnReply], None], words: str
) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(lie)
    result = world.coordinator.run("q")
    assert result.outcome == "partial"
    assert world.states()["r3"] is TaskState.INEFFECTIVE
    assert words in world.reason("r3")
    assert world.store.campaign("q").state is CampaignState.PARTIAL
    (covered,) = [m for m in coverage_of(world.store, "q").models if m.model_id == "r3"]
    assert (covered.successor, covered.state) == ("r3~q", TaskState.INEFFECTIVE)
    report = report_of(world.store, "q")
    assert [gap.models for gap in report.gaps if gap.kind is GapKind.INEFFECTIVE] == [("r3",)]


def test_a_version_with_the_very_same_weights_has_not_forgotten(world: World) -> None:
    digest = world.store.records(["r3"])["r3"].digest

    def unchanged(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            result.successor.digest = digest

    world.transport.twists["cleo", "train.unlearn"] = lying(unchanged)
    assert world.coordinator.run("q").outcome == "partial"
    assert world.states()["r3"] is TaskState.INEFFECTIVE
    assert "the very same weights" in world.reason("r3")


def test_what_to_do_after_changes_of_roots_speaks_of_no_dampening(
    built_delta: Path, tmp_path: Path
) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world))
        world.transport.twists["cleo", "train.unlearn"] = lying(nothing_selected)
        world.coordinator.run("q")
        other = "another root method or more steps of repair, or retrain it"
        said = f"changed nothing, so it knows what it knew: ask again with {other}"
        assert said in world.reason("r3")


@pytest.mark.parametrize(("before", "measured"), [(0.9, True), (0.05, False)])
def test_figures_of_a_class_that_was_never_recognised_are_no_measurement(
    world: World, before: float, measured: bool
) -> None:
    """An owner with an older release may report accuracy 0 before and after."""

    def figures(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            found = result.forget
            found.before, found.after, found.margin, found.samples = before, 0.0, 0.107, 40
            found.measure, found.source = "accuracy", "evaluation"

    world.transport.twists["cleo", "train.unlearn"] = lying(figures)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.VERIFIED
    gaps = report_of(world.store, "q").gaps
    unmeasured = {model for gap in gaps if gap.kind is GapKind.NOT_MEASURED for model in gap.models}
    assert ("r3" not in unmeasured) is measured


def test_no_pass_verifies_it_later_and_it_can_be_rolled_back(world: World) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(nothing_selected)
    world.coordinator.run("q")
    world.transport.twists.clear()
    for resend in (False, True):
        world.coordinator.run("q", resend=resend)
        assert world.states()["r3"] is TaskState.INEFFECTIVE
    world.store.roll_back("q", ["r3"], "it did not help", actor="tests")
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.ROLLED_BACK
    assert world.store.records(["r3"])["r3"].status.value == "active"


def test_a_resumed_campaign_asks_again_for_models_without_a_successor(world: World) -> None:
    world.transport.twists["cleo", "train.unlearn"] = lying(gave_up)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.HARMFUL
    world.transport.twists.clear()
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.HARMFUL, "a person has to decide"
    world.store.transition("q", CampaignEvent.RESUME)
    assert world.states()["r3"] is TaskState.PENDING
    assert world.coordinator.run("q").outcome == "unchanged", "its owner had applied it"
    assert world.states()["r3"] is TaskState.VERIFIED
    entries = [read_entry(line) for line in list(world.store.audit_lines("q"))[1:]]
    kinds = [str(entry.event.kind) for entry in entries if entry.event.model_id == "r3"]
    assert kinds.index("harmful") < kinds.index("applied") < kinds.index("verified")


def test_an_answer_for_another_request_of_the_same_id_is_refused(world: World) -> None:
    def other(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            result.outcome, result.request_digest = pb.OUTCOME_ALREADY_APPLIED, "e" * 64

    world.transport.twists["cleo", "train.unlearn"] = lying(other)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED
    assert "under an id that was not used before" in world.reason("r3")


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1, float("inf")])
@pytest.mark.parametrize(
    "name", ["after", "named_before", "named_after", "named_chance", "found_after"]
)
def test_malformed_figures_are_refused(world: World, name: str, value: float) -> None:
    def nonsense(reply: pb.UnlearnReply) -> None:
        for result in reply.models:
            setattr(result.forget, name, value)

    world.transport.twists["cleo", "train.unlearn"] = lying(nonsense)
    world.coordinator.run("q")
    assert world.states()["r3"] is TaskState.FAILED


def test_a_wave_that_did_not_forget_does_not_pass_and_halts() -> None:
    done = Task("a", "anna", TaskState.VERIFIED, wave=0)
    late = Task("c", "cleo", wave=1)
    for state in (TaskState.INEFFECTIVE, TaskState.NOT_REACHED, TaskState.HARMFUL):
        tasks = [done, Task("b", "ben", state, wave=0), late]
        verdict = judge(RollOut(), tasks, 1, 0)
        assert verdict.open_waves == 1
        assert verdict.halt is not None
        assert f"the first b, which is {state}" in verdict.halt.reason
        assert judge(RollOut(), tasks, 1, 1).open_waves == 2, "a person let it pass"
        halted = judge(RollOut(max_error_rate=0.4), tasks, 1, 0).halt
        assert halted is not None
        assert "1 of them answered, and have not forgotten" in halted.reason
    waiting = [done, Task("b", "ben", TaskState.SENT, wave=0), late]
    assert judge(RollOut(), waiting, 1, 0).halt is None
