"""A device that falls back to an earlier image, detected at the next contact."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.agent import Agent
from disinherit.common.audit.export import read_entry
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.server.campaign.contact import Contacts, fallen_back
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult
from tests.server.service.test_fleet import CONFIG
from tests.support import campaign
from tests.support.agent import wait_for
from tests.support.campaign import World, gone, make_request
from tests.support.counting import counting
from tests.support.owner import PointsOwner
from tests.support.service import Client, Running, secret, write_tokens

DONE = TaskState.VERIFIED


def done(model: str, request: str, created_us: int) -> tuple[str, Task]:
    successor = RecordProto(id=f"{model}~{request}", created_us=created_us)
    result = ModelResult(model_id=model, successor=successor)
    return request, Task(model, "anna", DONE, result=result)


CHAIN = [done("base~a", "b", 20), done("base", "a", 10), done("other", "a", 11)]


@pytest.mark.parametrize(
    ("held", "again"),
    [
        (["base", "base~a", "base~a~b", "other", "other~a"], []),
        (["base", "base~a", "other", "other~a"], ["base~a"]),
        (["base", "other", "other~a"], ["base", "base~a"]),
        (["base", "base~a~b", "other~a"], ["base"]),  # of which it made the later one before
        (["other", "other~a"], []),  # nothing is there that could know anything
    ],
)
def test_what_is_gone_is_done_again_in_the_order_in_which_it_was_done(
    held: list[str], again: list[str]
) -> None:
    assert [task.model_id for _, task, _ in fallen_back(CHAIN, held)] == again


def kinds(world: World, request_id: str = "q") -> list[tuple[str, str]]:
    lines = list(world.store.audit_lines(request_id))[1:]
    return [(e.event.kind, e.event.model_id) for e in map(read_entry, lines)]


@contextmanager
def image_of(world: World, name: str, slot: Path) -> Iterator[None]:
    """Put back what an owner had on disk before the block."""
    shutil.copytree(world.root / name, slot)
    yield
    shutil.rmtree(world.root / name)
    shutil.copytree(slot, world.root / name)


def records(world: World) -> dict[str, ModelRecord]:
    """All versions, but for the scale of a Fisher summary, which registering completes."""
    models = world.store.graph().models()
    return {record.id: replace(record, fisher_scale=None) for record in models}


@pytest.mark.parametrize("contact", ["register", "check", "resend"])
def test_a_campaign_is_open_again_and_ends_as_before(
    world: World, tmp_path: Path, contact: str
) -> None:
    world.coordinator.submit(make_request())
    with image_of(world, "anna", tmp_path / "slot"):
        assert world.coordinator.run("q").outcome == "complete"
    before = records(world)
    assert set(world.states().values()) == {DONE}

    if contact == "register":
        assert world.coordinator.register(["anna", "ben", "cleo"], "head") == {}
    elif contact == "check":
        assert world.coordinator.check_held(["anna", "ben", "cleo"]) == set()
    else:
        world.store.resend("q", actor="person")

    assert world.store.campaign("q").state is CampaignState.RUNNING
    pending = {m for m, state in world.states().items() if state is TaskState.PENDING}
    assert {"r1", "r4"} <= pending
    if contact != "resend":
        assert pending == {"r1", "r4"}
        assert "it holds r1, and not r1~q" in world.reason("r1")
        assert [one for one in kinds(world) if one[0] == "fell_back"] == [
            ("fell_back", "r1"),
            ("fell_back", "r4"),
        ]

    result = world.coordinator.run("q")
    assert result.outcome == "complete"
    assert set(result.changed) == {"r1", "r4"}
    assert set(world.states().values()) == {DONE}
    assert records(world) == before
    for model in ("r1", "r4"):
        with world.owned(model) as store:
            assert store.record(f"{model}~q") == before[f"{model}~q"]
            assert store.record(model).status is ModelStatus.SUPERSEDED
    if contact != "resend":
        told = kinds(world)
        assert ("verified", "r1") in told[told.index(("fell_back", "r1")) :]
    assert world.coordinator.check_held(["anna", "ben", "cleo"]) == set()
    assert world.store.campaign("q").state is CampaignState.COMPLETE


def test_an_owner_that_holds_everything_changes_nothing(world: World) -> None:
    world.coordinator.submit(make_request())
    world.coordinator.run("q")
    before = world.knowledge(), kinds(world)
    world.transport.actions()
    assert world.coordinator.check_held(["anna", "nobody"]) == set()
    assert world.transport.actions() == [("anna", "evaluate.panel")]
    world.transport.twists["anna", "evaluate.panel"] = gone
    assert world.coordinator.check_held(["anna"]) == {"anna"}
    assert (world.knowledge(), kinds(world)) == before


def test_owners_that_come_together_are_looked_up_together(world: World) -> None:
    with counting() as counted:
        assert world.coordinator.check_held([f"nobody-{number}" for number in range(300)]) == set()
    assert counted.selects == 1


def test_a_device_that_cannot_do_the_next_request_is_asked_what_it_holds(
    world: World, tmp_path: Path
) -> None:
    world.coordinator.submit(make_request({"r1": ["cat"]}))
    with image_of(world, "anna", tmp_path / "slot"):
        assert world.coordinator.run("q").outcome == "complete"
    world.coordinator.submit(make_request({"r1": ["dog"]}, "next"))

    assert world.coordinator.run("next").outcome == "partial"
    assert world.states("next")["r1~q"] is TaskState.FAILED
    assert world.states()["r1"] is TaskState.PENDING
    assert world.coordinator.run("q").outcome == "complete"
    assert world.coordinator.run("next").outcome == "complete"


def test_what_was_done_again_but_cannot_be_reached_waits(world: World, tmp_path: Path) -> None:
    world.coordinator.submit(make_request())
    with image_of(world, "anna", tmp_path / "slot"):
        world.coordinator.run("q")
    world.coordinator.check_held(["anna"])
    world.transport.twists["anna", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert world.states()["r1"] is TaskState.PENDING
    assert world.reason("r1") == "owner anna is not connected"
    del world.transport.twists["anna", "train.unlearn"]
    assert world.coordinator.run("q").outcome == "complete"


def test_owners_are_checked_once_they_have_connected_and_not_all_the_time() -> None:
    asked: list[set[str]] = []
    waiting: set[str] = {"ben"}

    def check(owners: object) -> set[str]:
        asked.append(set(owners))  # type: ignore[call-overload]
        return waiting

    contacts = Contacts(check)
    contacts.look()
    contacts.arrived("anna")
    contacts.arrived("ben")
    contacts.look()
    assert asked == [{"anna", "ben"}]
    contacts.look()  # ben has not answered: he is asked in a while
    contacts.arrived("anna")  # and she not before a minute has passed
    contacts.look()
    assert asked == [{"anna", "ben"}]


def test_resending_is_for_operators_and_for_campaigns_that_go_on(running: Running) -> None:
    operator, approver = running.client("operator"), running.client("approver")
    operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
    with pytest.raises(grpc.RpcError) as refused:
        operator.ResendRequest(pb.ControlRequest(id="q"))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "running, complete or partial" in (refused.value.details() or "")
    approver.ApproveRequest(pb.ControlRequest(id="q"))
    wait_for(lambda: operator.GetRequest(pb.GetRequestRequest(id="q")).tasks["verified"] == 5)
    operator.ResendRequest(pb.ControlRequest(id="q"))
    wait_for(lambda: ("resent", "") in kinds(running.world))
    wait_for(lambda: operator.GetRequest(pb.GetRequestRequest(id="q")).tasks["verified"] == 5)
    with pytest.raises(grpc.RpcError) as unknown:
        operator.ResendRequest(pb.ControlRequest(id="x"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_agent_that_comes_back_with_an_old_image_forgets_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disinherit.server.campaign.contact._LEAST_SECONDS", 1.0)
    campaign.build(tmp_path)
    write_tokens(tmp_path / "tokens.toml")
    (tmp_path / "serve.toml").write_text(CONFIG.replace("tokens =", "approval = false\ntokens ="))
    service = Service(read_settings(tmp_path / "serve.toml", {}, {}))
    service.start()
    identity = {}

    def agent(name: str) -> Agent:
        assert service.fleet is not None
        config = AgentConfig(
            owner=name,
            server=f"127.0.0.1:{service.fleet.server.port}",
            ca=tmp_path / "authority" / "ca.pem",
            state=tmp_path / f"state-{name}",
            factory="",
            enrol_server=f"127.0.0.1:{service.fleet.server.enrol_port}",
        )
        if name not in identity:
            identity[name] = enrol(config, service.fleet.enrolment.invite(name))
        return Agent(config, identity[name], lambda: PointsOwner(tmp_path / name, name))

    try:
        with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            operator = Client(channel, secret("operator"))

            def verified() -> int:
                return int(operator.GetRequest(pb.GetRequestRequest(id="q")).tasks["verified"])

            shutil.copytree(tmp_path / "anna", tmp_path / "slot")
            operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
            with agent("anna"), agent("ben"), agent("cleo"):
                wait_for(lambda: verified() == 5)
            shutil.rmtree(tmp_path / "anna")
            shutil.copytree(tmp_path / "slot", tmp_path / "anna")
            with agent("anna"):
                wait_for(lambda: holds(tmp_path, "r1~q") and verified() == 5, 90.0)
            assert holds(tmp_path, "r4~q")
    finally:
        service.stop(grace=0.5)


def holds(root: Path, model: str) -> bool:
    with PointsOwner(root / "anna", "anna") as owner:
        return model in {record.id for record in owner.store.records()}
