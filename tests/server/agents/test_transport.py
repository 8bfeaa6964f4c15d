"""Campaigns over real agents: equal to campaigns in process, and pending while agents are away."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from disinherit.server.agents.transport import AgentTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import TaskState
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.agent import AgentsSide, note_downloads, send_none_along, wait_for
from tests.support.campaign import AFFECTED, NAMES, World, copy, make_request
from tests.support.owner import PointsOwner


@pytest.fixture
def side(world: World) -> Iterator[AgentsSide]:
    with AgentsSide(world.root) as side:
        yield side


def ask(side: AgentsSide, owner: str, timeout: float = 30.0) -> Answer:
    task = pb.EvaluateTask(model_ids=["r1"])
    (answer,) = side.transport.ask([Ask(owner, "evaluate.panel", task)], timeout)
    return answer


def digests(world: World) -> dict[str, tuple[str, str]]:
    """Model -> digests of its successor and of its Fisher summary."""
    results = {m: task.result for m, task in world.store.tasks("q").items()}
    return {
        m: (result.successor.digest, result.successor.fisher_digest)
        for m, result in results.items()
        if result is not None
    }


@pytest.mark.parametrize("along", [True, False])
def test_a_campaign_over_agents_equals_one_in_process(
    along: bool,
    built: Path,
    tmp_path: Path,
    world: World,
    side: AgentsSide,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packets come along with the task, or are fetched."""
    fetched = note_downloads(side, monkeypatch)
    if not along:
        send_none_along(monkeypatch)
    with copy(built, tmp_path / "direct") as direct:
        direct.coordinator.submit(make_request())
        assert direct.coordinator.run("q").changed
        expected = digests(direct)
    coordinator = Coordinator(world.store, side.transport, timeout=60.0)
    coordinator.submit(make_request())
    with ExitStack() as agents:
        for name in NAMES:
            agents.enter_context(side.agent(name))
        result = coordinator.run("q")
        assert sorted(result.changed) == sorted(AFFECTED)
        again = coordinator.run("q", resend=True)
        assert not again.changed
    assert set(world.states().values()) == {TaskState.VERIFIED}
    assert digests(world) == expected
    assert expected.keys() == set(AFFECTED)
    assert (not fetched) is along
    leftovers = [path for name in NAMES for path in side.root.glob(f"state-{name}/downloads/*")]
    assert leftovers == []


def test_models_of_an_agent_that_is_away_are_pending_until_it_comes(
    world: World, side: AgentsSide
) -> None:
    coordinator = Coordinator(world.store, side.transport, timeout=60.0)
    coordinator.submit(make_request())
    with side.agent("anna"), side.agent("ben"):
        coordinator.run("q")
        states = world.states()
        assert states.pop("r3") is TaskState.PENDING
        assert set(states.values()) == {TaskState.VERIFIED}
        assert world.reason("r3") == "owner cleo is not connected"
        assert not side.fleet.reaches("cleo")
        with side.agent("cleo"):
            assert side.fleet.reaches("cleo")
            assert side.arrivals[-1] == "cleo"
            assert coordinator.run("q").changed == ("r3",)
    assert world.states()["r3"] is TaskState.VERIFIED


def test_a_task_waits_for_an_agent_that_reconnects(world: World, side: AgentsSide) -> None:
    begun = threading.Event()
    held = threading.Event()

    def slowly() -> PointsOwner:
        begun.set()
        held.wait(30.0)
        return PointsOwner(world.root / "anna", "anna")

    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(side, "anna")))
    with side.agent("anna", slowly):
        asking.start()
        assert begun.wait(30.0)
        arrivals = len(side.arrivals)
        for session in side.hub.sessions():  # as when the network is gone for a moment
            side.hub.leave(session)
        wait_for(lambda: len(side.arrivals) > arrivals)
        held.set()
        asking.join(30.0)
    (answer,) = answers
    assert isinstance(answer.reply, pb.EvaluateReply)
    assert answer.reply.models[0].digest


def test_a_failure_is_reported_without_a_wait(world: World, side: AgentsSide) -> None:
    def broken() -> PointsOwner:
        raise OSError("no such disk")

    def another() -> PointsOwner:
        return PointsOwner(world.root / "ben", "ben")

    with side.agent("anna", broken):
        answer = ask(side, "anna")
    assert not answer.unreachable
    assert "but got OSError. The owner's log has the reason under reference" in answer.error
    with side.agent("anna", another):
        answer = ask(side, "anna")
    assert "those of 'ben'" in answer.error


def test_a_slow_or_absent_agent_may_answer_later(world: World, side: AgentsSide) -> None:
    begun = threading.Event()
    held = threading.Event()

    def slowly() -> PointsOwner:
        begun.set()
        held.wait(30.0)
        return PointsOwner(world.root / "anna", "anna")

    with side.agent("anna", slowly):
        answer = ask(side, "anna", timeout=0.2)
        assert answer.unreachable
        assert answer.error == "owner anna did not answer within 0.2 s"
        held.set()
        assert ask(side, "anna").reply is not None  # its late answer to the first is ignored
        held.clear()
        begun.clear()
        side.transport = AgentTransport(side.hub, side.blobs, grace=0.3)
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(ask(side, "anna")))
        asking.start()
        assert begun.wait(30.0)
        side.server.stop()
        asking.join(30.0)
        held.set()
    assert answers[0].unreachable
    assert answers[0].error == "owner anna was lost before it answered"
