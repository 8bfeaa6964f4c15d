"""Roll-back of a campaign: old versions current again, at owners and in the graph, once."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from disinherit.common.errors import CampaignError, RequestError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.driver import OpenCampaigns
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.store.test_audit import exported
from tests.support.agent import AgentsSide
from tests.support.campaign import (
    AFFECTED,
    NAMES,
    OWNERS,
    World,
    broken,
    copy,
    gone,
    lying,
    make_request,
    reply_lost,
)
from tests.support.owner import LABELS, PointsOwner

DONE = dict.fromkeys(AFFECTED, TaskState.ROLLED_BACK)
ASKED = [(name, "train.rollback") for name in NAMES]


@pytest.fixture(scope="module")
def before(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Model -> digest, before anything was forgotten."""
    with copy(built, tmp_path_factory.mktemp("before") / "world") as world:
        return {record.id: record.digest for record in world.store.graph().models()}


@pytest.fixture(scope="module")
def complete(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation in which request "q" is complete."""
    root = tmp_path_factory.mktemp("complete") / "world"
    with copy(built, root) as world:
        world.coordinator.submit(make_request())
        world.coordinator.run("q")
        assert world.store.campaign("q").state is CampaignState.COMPLETE
    return root


@pytest.fixture
def world(complete: Path, tmp_path: Path, database: str | None) -> Iterator[World]:
    with copy(complete, tmp_path / "world", database) as world:
        yield world


def current(world: World) -> dict[str, str]:
    """Model -> digest of what is current, where owners and coordinator agree."""
    graph = world.store.graph()
    found = {}
    for name in NAMES:
        with PointsOwner(world.root / name, name) as owner:
            for record in owner.store.records():
                assert graph.model(record.id).status is record.status
                assert graph.model(record.id).digest == record.digest
                if record.status is ModelStatus.ACTIVE:
                    owner.store.weights(record.id)  # they are what the digest says
                    found[record.id] = record.digest
    return found


def check_undone(world: World, before: Mapping[str, str]) -> None:
    """Everything is as if nothing had been forgotten."""
    assert world.states() == DONE
    assert world.store.campaign("q").state is CampaignState.ROLLED_BACK
    assert current(world) == before


# Of a campaign that is complete


def test_every_model_is_as_it_was_before(world: World, before: Mapping[str, str]) -> None:
    assert current(world) != before
    campaign = world.store.roll_back("q", reason="too much was lost", actor="approver:eve")
    assert campaign.state is CampaignState.ROLLING_BACK
    assert set(world.states().values()) == {TaskState.ROLLING_BACK}
    world.transport.asked.clear()
    result = world.coordinator.run("q")
    assert sorted(result.changed) == sorted(AFFECTED)
    assert result.outcome == "rolled_back"
    assert world.transport.actions() == ASKED
    check_undone(world, before)
    covered = coverage_of(world.store, "q").models
    assert [one.model_id for one in covered] == list(AFFECTED)
    for one in covered:
        assert one.state is TaskState.ROLLED_BACK
        assert one.reason == "too much was lost"
        assert (one.successor, one.digest_after) == ("", "")
        assert one.digest_before == before[one.model_id]


def test_roll_back_is_logged(world: World, before: Mapping[str, str]) -> None:
    start = len(exported(world.store, "q"))
    world.store.roll_back("q", reason="Jane Roe asked", actor="approver:eve")
    world.coordinator.run("q")
    told = [entry.event for entry in exported(world.store, "q")][start:]
    everyone = len(AFFECTED)
    assert [event.kind for event in told] == [
        "rollback_decided",
        *["rollback_planned"] * everyone,
        *["rolled_back"] * everyone,
        "rollback_completed",
    ]
    assert {event.actor for event in told[: 1 + everyone]} == {"approver:eve"}
    for event in told[1 + everyone : -1]:
        assert event.actor == f"owner:{OWNERS[event.model_id]}"
        assert event.digest_after == before[event.model_id]
        assert event.digest_before == world.store.graph().model(f"{event.model_id}~q").digest
        assert event.parameters == {"retired": f"{event.model_id}~q"}
    assert b"Jane" not in b"".join(world.store.audit_lines())


def test_deciding_again_changes_nothing(world: World, before: Mapping[str, str]) -> None:
    for _ in range(2):
        world.store.roll_back("q", reason="first")
    lines = list(world.store.audit_lines())
    assert world.store.roll_back("q", ["r1"]).state is CampaignState.ROLLING_BACK
    assert list(world.store.audit_lines()) == lines
    world.coordinator.run("q")
    assert world.store.roll_back("q").state is CampaignState.ROLLED_BACK
    check_undone(world, before)
    with pytest.raises(CampaignError, match="rolled_back"):
        world.coordinator.run("q")


def test_some_models_may_be_chosen_and_others_later(
    world: World, before: Mapping[str, str]
) -> None:
    world.store.roll_back("q", ["r4"], "asked to")
    world.transport.asked.clear()
    assert world.coordinator.run("q").outcome == "rolled_back"
    assert world.transport.actions() == [("anna", "train.rollback")]
    expected = dict.fromkeys(AFFECTED, TaskState.VERIFIED) | {"r4": TaskState.ROLLED_BACK}
    assert world.states() == expected
    assert world.store.campaign("q").state is CampaignState.ROLLED_BACK
    assert current(world)["r4"] == before["r4"]
    assert "r1" not in current(world)
    world.store.roll_back("q")
    world.coordinator.run("q")
    check_undone(world, before)


def test_a_campaign_costs_the_log_the_same_however_many_were_rolled_back_before(
    world: World,
) -> None:
    entries = []
    for number in range(3):
        id = f"again-{number}"
        world.coordinator.submit(make_request(request_id=id))
        world.coordinator.run(id)
        world.store.roll_back(id)
        world.coordinator.run(id)
        entries.append(len(list(world.store.audit_lines(id))))
    assert len(set(entries)) == 1


def test_the_same_may_be_asked_anew_under_another_id(
    world: World, before: Mapping[str, str]
) -> None:
    forgotten = current(world)
    world.store.roll_back("q")
    world.coordinator.run("q")
    planned = world.coordinator.submit(make_request(request_id="anew"))
    assert {m for group in planned.groups for m in group.models} == set(AFFECTED)
    world.coordinator.run("anew")
    states = world.states("anew")
    # Those that were retired are out of use: nobody is asked or told about them again.
    assert states == dict.fromkeys(AFFECTED, TaskState.VERIFIED)
    assert world.store.campaign("anew").state is CampaignState.COMPLETE
    # The same weights, whatever happened before.
    assert sorted(current(world).values()) == sorted(forgotten.values())
    world.store.roll_back("anew")
    world.coordinator.run("anew")
    assert current(world) == before


def test_a_model_keeps_one_class_and_what_was_rolled_back_does_not_count(world: World) -> None:
    """Request "q" has cleared cats at r1 and owls at r2, which was made of r1."""
    rest = make_request({"r1": [name for name in LABELS if name != "cat"]}, "p")
    with pytest.raises(RequestError, match=r"one class of 'r1' .* forget 'cat', .* Retire the mod"):
        world.coordinator.submit(rest)
    owls = make_request({"r2": [name for name in LABELS if name != "owl"]}, "o")
    with pytest.raises(RequestError, match="earlier requests made it forget"):
        world.coordinator.submit(owls)
    assert world.store.requests() == ["q"]
    world.coordinator.submit(make_request())  # the same request again is no further one
    world.store.roll_back("q", reason="too much was lost", actor="approver:eve")
    world.coordinator.run("q")
    world.coordinator.submit(rest)


def test_driver_carries_out_a_roll_back(world: World, before: Mapping[str, str]) -> None:
    open_campaigns = OpenCampaigns(world.coordinator)
    assert open_campaigns() == {}
    world.store.roll_back("q")
    assert list(open_campaigns()) == ["q"]
    world.coordinator.run("q")
    assert open_campaigns() == {}


# Where something was built upon


def test_a_version_that_something_was_derived_from_is_refused(world: World) -> None:
    child = ModelRecord("n", "anna", "x", LABELS, "0a", 10**17)
    world.store.add_model(child, [Inheritance("r4~q", "n", InheritanceKind.TRANSFER)])
    known = world.knowledge()
    with pytest.raises(RequestError, match="derived from 'r4~q'.*'n' was.*leave 'r4' out"):
        world.store.roll_back("q")
    assert world.knowledge() == known
    world.store.roll_back("q", ["r1", "r2"])
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.ROLLED_BACK
    assert world.states()["r4"] is TaskState.VERIFIED


def test_a_version_that_another_request_superseded_is_refused_until_that_is_rolled_back(
    world: World, before: Mapping[str, str]
) -> None:
    middle = current(world)
    world.coordinator.submit(make_request({"r1": ("dog",)}, "p"))
    world.coordinator.run("p")
    with pytest.raises(RequestError, match="made 'r1~q~p' of it. Roll that request back"):
        world.store.roll_back("q")
    world.store.roll_back("p")
    world.coordinator.run("p")
    assert current(world) == middle
    world.store.roll_back("q")
    world.coordinator.run("q")
    check_undone(world, before)


def test_refused_model_keeps_its_state_with_the_reason(world: World) -> None:
    world.store.roll_back("q")
    with world.owned("r3") as store:  # superseded meanwhile, which the coordinator does not know
        path = store.root / "objects" / f"{store.record('r3').digest}.safetensors"
        path.write_bytes(b"damaged")
    world.coordinator.run("q")
    assert world.states() == DONE | {"r3": TaskState.APPLIED}
    assert world.reason("r3").startswith("not rolled back: Cannot load the weights of model 'r3'")
    assert world.store.campaign("q").state is CampaignState.ROLLED_BACK
    assert world.store.graph().model("r3~q").status is ModelStatus.ACTIVE
    told = {entry.event.kind: entry.event.model_id for entry in exported(world.store, "q")}
    assert told["rollback_refused"] == "r3"


def wrong_digest(reply: pb.RollBackReply) -> None:
    reply.models[0].digest = "00"


def mentions_nobody(reply: pb.RollBackReply) -> None:
    del reply.models[:]


def says_nothing(reply: pb.RollBackReply) -> None:
    reply.models[0].ClearField("outcome")


@pytest.mark.parametrize(
    ("twist", "words"),
    [
        (lying(wrong_digest), "its owner holds 00"),
        (lying(mentions_nobody), "did not mention"),
        (lying(says_nothing), "no outcome"),
        (broken, "disk on fire"),
    ],
)
def test_implausible_answer_is_a_refusal(world: World, twist: object, words: str) -> None:
    assert callable(twist)
    world.transport.twists["cleo", "train.rollback"] = twist
    world.store.roll_back("q")
    world.coordinator.run("q")
    assert world.states() == DONE | {"r3": TaskState.APPLIED}
    assert words in world.reason("r3")
    assert world.store.graph().model("r3").status is ModelStatus.SUPERSEDED
    # It may be decided again.
    world.transport.twists.clear()
    world.store.roll_back("q")
    world.coordinator.run("q")
    assert world.states() == DONE


@pytest.mark.parametrize("models", [["r1", "nobody"], ["d"]])
def test_unaffected_models_are_refused(world: World, models: list[str]) -> None:
    known = world.knowledge()
    with pytest.raises(RequestError, match=f"but got '{models[-1]}'"):
        world.store.roll_back("q", models)
    assert world.knowledge() == known


# In any state, and in trouble


def test_a_campaign_that_runs_must_be_paused_or_aborted_first(
    built: Path, tmp_path: Path, database: str | None, before: Mapping[str, str]
) -> None:
    with copy(built, tmp_path / "world", database) as world:
        world.coordinator.submit(make_request(), approval=True)
        with pytest.raises(RequestError, match="but it is awaiting_approval"):
            world.store.roll_back("q")
        world.store.transition("q", CampaignEvent.APPROVE)
        with pytest.raises(RequestError, match="to roll back, but it is running"):
            world.store.roll_back("q")
        world.transport.twists["cleo", "train.unlearn"] = reply_lost
        world.coordinator.run("q")
        assert world.states()["r3"] is TaskState.PENDING
        world.store.transition("q", CampaignEvent.PAUSE)
        world.store.roll_back("q")
        world.coordinator.run("q")
        assert world.states() == DONE
        # r3~q is known to its owner alone: the answer was lost.
        with world.owned("r3") as store:
            assert store.record("r3").status is ModelStatus.ACTIVE
            assert store.record("r3~q").status is ModelStatus.RETIRED
            assert store.record("r3").digest == before["r3"]


def test_a_request_that_never_reached_an_owner_is_not_applied_after_its_roll_back(
    built: Path, tmp_path: Path, database: str | None, before: Mapping[str, str]
) -> None:
    with copy(built, tmp_path / "world", database) as world:
        world.coordinator.submit(make_request())
        world.transport.twists["cleo", "train.unlearn"] = gone
        world.coordinator.run("q")
        late = next(ask for ask in world.transport.asked if ask.owner == "cleo")
        assert late.action == "train.unlearn"
        world.store.transition("q", CampaignEvent.ABORT)
        world.store.roll_back("q")
        world.coordinator.run("q")
        check_undone(world, before)
        (answer,) = world.transport.inner.ask([late], 60.0)
        assert isinstance(answer.reply, pb.UnlearnReply)
        assert "rolled back" in answer.reply.models[0].error
        check_undone(world, before)


def test_owners_that_are_away_are_served_when_they_are_back(
    world: World, before: Mapping[str, str]
) -> None:
    world.store.roll_back("q", reason="asked to")
    world.transport.twists["cleo", "train.rollback"] = gone
    world.transport.twists["ben", "train.rollback"] = reply_lost
    world.transport.asked.clear()
    for _ in range(2):
        assert world.coordinator.run("q").outcome == "rolling_back"
        assert world.transport.actions()[-1] == ("cleo", "train.rollback")
        assert world.store.campaign("q").state is CampaignState.ROLLING_BACK
    waiting = {m for m, state in world.states().items() if state is TaskState.ROLLING_BACK}
    assert waiting == {"r2", "r3", "r6"}
    world.transport.twists.clear()
    world.coordinator.run("q")
    assert world.transport.actions() == ASKED[1:]
    check_undone(world, before)
    assert world.reason("r3") == "asked to"


def test_result_applied_during_the_decision_is_undone(
    built: Path, tmp_path: Path, database: str | None, before: Mapping[str, str]
) -> None:
    with copy(built, tmp_path / "world", database) as world:
        world.coordinator.submit(make_request())

        def decide(ask: Ask, honest: object) -> Answer:
            assert callable(honest)
            answer = honest()
            assert isinstance(answer, Answer)
            world.store.transition("q", CampaignEvent.PAUSE)
            world.store.roll_back("q")
            return answer

        world.transport.twists["anna", "train.unlearn"] = decide
        world.coordinator.run("q")
        assert set(world.states().values()) == {TaskState.ROLLING_BACK}
        assert world.store.campaign("q").state is CampaignState.ROLLING_BACK
        told = [entry.event.kind for entry in exported(world.store, "q")]
        assert told.count("applied") == len(AFFECTED)
        world.transport.twists.clear()
        world.coordinator.run("q")
        check_undone(world, before)


def test_a_version_that_took_another_s_place_gives_it_back_to_a_campaign_that_runs(
    world: World,
) -> None:
    world.transport.twists["anna", "query.fisher"] = gone
    world.coordinator.submit(make_request({"r1": ("dog",)}, "p"))
    world.coordinator.run("p")
    assert world.states("p")["r1"] is TaskState.EXEMPT
    world.store.roll_back("q")
    world.coordinator.run("q")
    world.transport.twists.clear()
    world.coordinator.run("p")
    assert world.states("p")["r1"] is TaskState.VERIFIED
    assert world.states("p")["r1~q"] is TaskState.EXEMPT
    assert world.store.campaign("p").state is CampaignState.COMPLETE


# Killed at any point


class DeadlyTransport:
    """Kills its process at one point."""

    def __init__(self, inner: Transport, index: int, when: str) -> None:
        self._inner = inner
        self._point = index, when

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        for index, ask in enumerate(asks):
            self._die_at(index, "before")
            (answer,) = self._inner.ask([ask], timeout)
            self._die_at(index, "after")
            yield answer
        self._die_at(len(asks), "")

    def _die_at(self, index: int, when: str) -> None:
        if (index, when) == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(root: Path, database: str | None, index: int, when: str) -> None:
    with World(root, database) as world:
        deadly = DeadlyTransport(world.transport.inner, index, when)
        Coordinator(world.store, deadly, lease_seconds=0.2).run("q")


@pytest.mark.parametrize(
    ("index", "when"),
    [*((index, when) for index in range(len(NAMES)) for when in ("before", "after")), (3, "")],
)
def test_a_coordinator_killed_at_any_point_is_followed_by_one_that_finishes(
    world: World, before: Mapping[str, str], index: int, when: str
) -> None:
    world.store.roll_back("q")
    world.store.close()
    process = multiprocessing.get_context("fork").Process(
        target=run_and_die, args=(world.root, world.database, index, when)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with world.again() as after:
        Coordinator(after.store, after.transport, patience=30.0).run("q")
        # What was answered is not asked again.
        assert after.transport.actions() == ASKED[index:]
        check_undone(after, before)
        told = [entry.event.kind for entry in exported(after.store, "q")]
        assert told.count("rolled_back") == len(AFFECTED)
        assert told.count("rollback_completed") == 1


# Over agents


def test_agents_put_back_what_they_hold(world: World, before: Mapping[str, str]) -> None:
    world.store.roll_back("q")
    with AgentsSide(world.root) as side, ExitStack() as agents:
        coordinator = Coordinator(world.store, side.transport, timeout=60.0)
        for name in NAMES[:2]:
            agents.enter_context(side.agent(name))
        coordinator.run("q")
        assert world.states() == DONE | {"r3": TaskState.ROLLING_BACK}
        agents.enter_context(side.agent(NAMES[2]))
        coordinator.run("q")
    check_undone(world, before)
