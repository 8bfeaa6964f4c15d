"""A device that stays away for three campaigns is brought up to date as if it had been there.

Cleo is away while cats, owls and dogs are to be forgotten, one request after the other.  From her
version r3, which knows all of them, she derives r7 meanwhile.  Then she is back.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.agent import Agent
from disinherit.common.graph.proto import inheritance_to_proto, record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.agents.fleet import FleetSettings
from disinherit.server.campaign import order
from disinherit.server.campaign.driver import Driver, OpenCampaigns
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import ServeSettings
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import UnlearningRequest
from tests.support import campaign
from tests.support.agent import wait_for
from tests.support.campaign import World, copy, gone
from tests.support.owner import PointsOwner
from tests.support.service import Client, secret, write_tokens

REQUESTS: dict[str, dict[str, list[str]]] = {
    "q1": {"r1": ["cat"]},
    "q2": {"r2": ["owl"]},
    "q3": {"r2": ["dog"]},
}
METHOD: dict[str, Any] = {"scope": "all", "alpha": 5.0}
"""In the head rows are taken out, in any order with the same end; below it the order counts."""

DERIVED = Inheritance("r3", "r7", InheritanceKind.INCREMENTAL)
ACTIONS = ("query.register", "query.fisher", "train.unlearn", "evaluate.panel")


def make_request(forget: dict[str, list[str]], request_id: str) -> UnlearningRequest:
    return campaign.make_request(forget, request_id, **METHOD)


def derive(root: Path) -> ModelRecord:
    """Cleo trains r7 from r3."""
    with PointsOwner(root / "cleo", "cleo") as cleo:
        start = [cleo.store.weights("r3")]
        return cleo.train("r7", ("dog", "yak"), created_us=100, start=start)


def submit(world: World) -> None:
    for request_id, forget in REQUESTS.items():
        world.coordinator.submit(make_request(forget, request_id))


def states(world: World, model: str) -> list[TaskState | None]:
    tasks = (world.store.tasks(request_id).get(model) for request_id in REQUESTS)
    return [task.state if task else None for task in tasks]


def final(root: Path) -> dict[str, str]:
    """Version that three requests made -> digest of what its owner holds."""
    found = {}
    for name in campaign.NAMES:
        with PointsOwner(root / name, name) as owner:
            for record in owner.store.records():
                assert owner.store.weights(record.id)
                found[record.id] = record.digest
    return found


@pytest.fixture(scope="module")
def never_away(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What everybody holds in the end if Cleo was there all the time."""
    with copy(built, tmp_path_factory.mktemp("never-away") / "world") as world:
        world.store.add_model(derive(world.root), [DERIVED])
        for request_id, forget in REQUESTS.items():
            world.coordinator.submit(make_request(forget, request_id))
            assert world.coordinator.run(request_id).outcome == "complete"
        digests = final(world.root)
    assert {"r3~q1~q2~q3", "r7~q1~q2~q3", "r2~q1~q2~q3"} <= digests.keys()
    return digests


@pytest.fixture
def away(world: World) -> World:
    """The three campaigns have been carried out as far as possible without Cleo."""
    submit(world)
    world.transport.twists = {("cleo", action): gone for action in ACTIONS}
    for _ in range(2):  # the older ones first, and once more
        for request_id in REQUESTS:
            world.coordinator.run(request_id)
    assert states(world, "r6") == [TaskState.VERIFIED, TaskState.EXEMPT, TaskState.EXEMPT]
    assert states(world, "r3") == [TaskState.PENDING] * 3
    return world


def test_the_order_makes_a_difference(world: World, never_away: dict[str, str]) -> None:
    for request_id in reversed(REQUESTS):
        world.coordinator.submit(make_request(REQUESTS[request_id], request_id))
        world.coordinator.run(request_id)
    assert final(world.root)["r3~q3~q2~q1"] != never_away["r3~q1~q2~q3"]


def test_whatever_the_order_of_passes_the_older_campaign_comes_first(
    away: World, never_away: dict[str, str]
) -> None:
    away.transport.twists.clear()
    away.store.add_model(derive(away.root), [DERIVED])
    for _ in range(3):
        for request_id in reversed(REQUESTS):
            away.coordinator.run(request_id)
    assert final(away.root) == never_away
    for request_id in REQUESTS:
        assert away.store.campaign(request_id).state is CampaignState.COMPLETE
        assert "r7" in away.store.tasks(request_id)
    assert states(away, "r3") == [TaskState.VERIFIED, TaskState.EXEMPT, TaskState.EXEMPT]


@pytest.mark.parametrize("few", [0, 100], ids=["of its kin", "all"])
def test_waiting_campaign_names_the_one_it_waits_for(
    away: World, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it looks at all older campaigns, or at those that concern its models."""
    monkeypatch.setattr(order, "_FEW", few)
    away.transport.twists.clear()
    away.transport.actions()
    away.coordinator.run("q3")
    assert ("cleo", "train.unlearn") not in away.transport.actions()
    assert away.reason("r3", "q3") == "waits for q1, which is older and reaches it first"
    known = away.knowledge()
    away.coordinator.run("q3")
    assert away.knowledge() == known
    away.coordinator.run("q1")
    away.coordinator.run("q3")
    assert away.reason("r3~q1", "q3") == "waits for q2, which is older and reaches it first"


def test_a_model_that_comes_late_goes_through_what_is_complete_first(
    world: World, never_away: dict[str, str]
) -> None:
    """Registered between two looks at the graph: the youngest campaign is the first to see it."""
    submit(world)
    for request_id in REQUESTS:
        world.coordinator.run(request_id)
    open_campaigns = OpenCampaigns(world.coordinator)
    assert open_campaigns() == {}
    world.store.add_model(derive(world.root), [DERIVED])
    world.coordinator.run("q3")
    assert world.store.tasks("q3")["r7"].state is TaskState.PENDING
    for _ in range(3):
        for request_id in open_campaigns():
            world.coordinator.run(request_id)
    assert open_campaigns() == {}
    assert final(world.root) == never_away


@pytest.mark.parametrize(
    ("event", "deadline_us"), [(CampaignEvent.PAUSE, 0), (CampaignEvent.ABORT, 0), (None, 1)]
)
def test_stopped_or_expired_campaign_does_not_block_others(
    away: World, event: CampaignEvent | None, deadline_us: int
) -> None:
    if event is None:
        away.store.transition("q1", CampaignEvent.RESUME, deadline_us)
        away.coordinator.run("q1")
        assert away.store.campaign("q1").state is CampaignState.PARTIAL
    else:
        away.store.transition("q1", event)
    away.transport.twists.clear()
    away.coordinator.run("q2")
    assert away.states("q2")["r3"] is TaskState.VERIFIED


def test_a_model_that_an_older_campaign_failed_at_is_reached_by_the_younger(away: World) -> None:
    away.transport.twists = {("cleo", "train.unlearn"): campaign.broken}
    away.coordinator.run("q1")
    assert away.states("q1")["r3"] is TaskState.FAILED
    away.transport.twists.clear()
    away.coordinator.run("q2")
    assert away.states("q2")["r3"] is TaskState.VERIFIED
    # And the older one follows on what that made.
    away.coordinator.run("q1")
    assert away.states("q1") | {"r3": TaskState.EXEMPT, "r3~q2": TaskState.VERIFIED} == (
        away.states("q1")
    )


def test_the_driver_brings_a_device_up_to_date_in_one_go(
    away: World, never_away: dict[str, str]
) -> None:
    away.transport.twists.clear()
    open_campaigns = OpenCampaigns(away.coordinator)
    away.store.add_model(derive(away.root), [DERIVED])
    # Once only, without a second sweep: each campaign gets its turn after the older ones.
    driver = Driver(open_campaigns, away.coordinator.run, interval=600.0)
    driver.start()
    try:
        wait_for(lambda: open_campaigns() == {}, 60.0)
    finally:
        assert driver.stop(60.0)
    assert final(away.root) == never_away


@pytest.mark.slow
def test_over_agents_and_the_service(
    built: Path, tmp_path: Path, database: str | None, never_away: dict[str, str]
) -> None:
    root = tmp_path / "world"
    world = copy(built, root, database)
    world.store.close()
    fleet = FleetSettings(root / "authority", ["127.0.0.1"], "127.0.0.1:0", "127.0.0.1:0", agents=8)
    tokens = write_tokens(root / "tokens.toml")
    service = Service(
        ServeSettings(
            world.place,
            tokens,
            "127.0.0.1:0",
            packets=world.packets,
            approval=False,
            agents=fleet,
        )
    )
    service.start()
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel,
            ExitStack() as agents,
        ):
            operator = Client(channel, secret("operator"))
            for request_id, forget in REQUESTS.items():
                request = make_request(forget, request_id)
                operator.SubmitRequest(pb.SubmitRequestRequest(request=request))
            for name in ("anna", "ben"):
                agents.enter_context(agent(service, root, name))
            wait_for(lambda: left(operator) == [{"cleo"}] * 3, 60.0)
            record = derive(root)
            operator.RegisterModel(
                pb.RegisterModelRequest(
                    record=record_to_proto(record), parents=[inheritance_to_proto(DERIVED)]
                )
            )
            agents.enter_context(agent(service, root, "cleo"))
            wait_for(lambda: set(standing(operator)) == {pb.CAMPAIGN_STATE_COMPLETE}, 60.0)
    finally:
        service.stop(grace=0.5)
    assert final(root) == never_away


def agent(service: Service, root: Path, name: str) -> Agent:
    assert service.fleet is not None
    config = AgentConfig(
        owner=name,
        server=f"127.0.0.1:{service.fleet.server.port}",
        ca=root / "authority" / "ca.pem",
        state=root / f"state-{name}",
        factory="",
        enrol_server=f"127.0.0.1:{service.fleet.server.enrol_port}",
    )
    identity = enrol(config, service.fleet.enrolment.invite(name))
    return Agent(config, identity, partial(PointsOwner, root / name, name))


def left(operator: Client) -> list[set[str]]:
    """Whose models each campaign has not reached."""
    pages = (operator.GetCoverage(pb.GetCoverageRequest(id=id)) for id in REQUESTS)
    return [
        {m.owner for m in page.models if m.state not in ("verified", "exempt")} for page in pages
    ]


def standing(operator: Client) -> list[Any]:
    return [operator.GetRequest(pb.GetRequestRequest(id=id)).state for id in REQUESTS]
