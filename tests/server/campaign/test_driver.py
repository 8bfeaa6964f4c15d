"""The driver: progress despite failing campaigns, and earlier passes after a change."""

import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from disinherit.common.errors import StoreError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelStatus
from disinherit.server.campaign.driver import Driver, OpenCampaigns
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.now import now_us
from disinherit.server.planning.plan import Plan
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import World, broken, make_request


class Runs:
    """Campaigns whose passes are counted, and may fail."""

    def __init__(self, *ids: str) -> None:
        self.open = list(ids)
        self.seen = 0
        self.passes: list[str] = []
        self.moved = threading.Condition()
        self.trouble: dict[str, Exception] = {}
        self.moving: set[str] = set()

    def run(self, id: str) -> CampaignResult:
        with self.moved:
            self.passes.append(id)
            self.moved.notify_all()
        if id in self.trouble:
            raise self.trouble[id]
        return CampaignResult(id, {}, changed=("m",) if id in self.moving else ())

    def wait_for(self, id: str, times: int) -> None:
        with self.moved:
            assert self.moved.wait_for(lambda: self.passes.count(id) >= times, 10.0)


@contextmanager
def driving(runs: Runs, interval: float = 0.01, longest: float = 0.02) -> Iterator[Driver]:
    driver = Driver(lambda: dict.fromkeys(runs.open, runs.seen), runs.run, interval, longest)
    driver.start()
    try:
        yield driver
    finally:
        assert driver.stop()


def test_an_open_campaign_is_passed_over_until_it_ends() -> None:
    runs = Runs("a", "b")
    with driving(runs):
        runs.wait_for("a", 3)
        runs.wait_for("b", 3)
        runs.open = ["b"]
        before = runs.passes.count("b")
        runs.wait_for("b", before + 3)
        ended = runs.passes.count("a")
        runs.wait_for("b", before + 6)
    assert runs.passes.count("a") == ended


@pytest.mark.parametrize("error", [StoreError("locked"), ZeroDivisionError()])
def test_failing_campaign_does_not_block_others(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs("bad", "good")
    runs.trouble["bad"] = error
    with driving(runs):
        runs.wait_for("good", 3)
        runs.wait_for("bad", 3)
    assert "campaign bad" in caplog.text


def test_driver_survives_a_temporarily_unusable_store(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs("a")
    failures = iter([StoreError("gone"), StoreError("gone")])

    def open_campaigns() -> dict[str, Hashable]:
        for failure in failures:
            raise failure
        return dict.fromkeys(runs.open)

    driver = Driver(open_campaigns, runs.run, interval=0.01)
    driver.start()
    runs.wait_for("a", 1)
    assert driver.stop()
    assert caplog.text.count("cannot be driven") == 2


def test_campaign_without_progress_waits_until_poked() -> None:
    runs = Runs("a")
    with driving(runs, interval=60.0) as driver:
        runs.wait_for("a", 1)
        time.sleep(0.05)
        assert runs.passes == ["a"]
        driver.poke()
        runs.wait_for("a", 2)


def test_failed_campaign_waits_despite_changes_elsewhere() -> None:
    runs = Runs("bad", "good")
    runs.trouble["bad"] = ZeroDivisionError()
    runs.moving = {"good"}
    with driving(runs, interval=60.0, longest=60.0) as driver:
        for times in range(1, 20):
            driver.poke()
            runs.wait_for("good", times)
    assert runs.passes.count("bad") == 1
    driver = Driver(lambda: dict.fromkeys(runs.open, runs.seen), runs.run, interval=60.0)
    for runs.seen in (0, 0, 1, 1):  # what it depends on is another
        driver._drive()
    assert runs.passes.count("bad") == 3


def test_the_wait_grows_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    now = [0.0]
    monkeypatch.setattr("disinherit.server.campaign.driver.time.monotonic", lambda: now[0])
    runs = Runs("a")
    driver = Driver(
        lambda: dict.fromkeys(runs.open, runs.seen), runs.run, interval=1.0, longest=6.0
    )
    times = []
    for now[0] in (float(second) for second in range(26)):
        before = len(runs.passes)
        driver._drive()
        if len(runs.passes) > before:
            times.append(now[0])
    assert times == [0.0, 1.0, 3.0, 7.0, 13.0, 19.0, 25.0]


def test_campaign_without_progress_is_due_when_its_state_changes() -> None:
    runs = Runs("a")
    driver = Driver(lambda: dict.fromkeys(runs.open, runs.seen), runs.run, interval=60.0)
    for runs.seen in (0, 0, 1, 1, 2):
        driver._drive()
    assert len(runs.passes) == 3


def test_a_campaign_that_may_have_waited_for_an_older_one_gets_its_turn_after_it() -> None:
    runs = Runs("older", "younger")
    runs.moving = {"older"}
    with driving(runs, interval=0.01, longest=600.0):
        # By itself it would wait twice as long every time.
        runs.wait_for("younger", 30)


# Which campaigns are open


@pytest.fixture
def planned(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that are planned anew for versions that may have joined, in order."""
    found: list[str] = []
    submit = world.coordinator.submit

    def noted(request: pb.UnlearningRequest, **options: Any) -> Plan:
        found.append(request.id)
        return submit(request, **options)

    monkeypatch.setattr(world.coordinator, "submit", noted)
    return found


def add(world: World, name: str, *parents: str) -> None:
    record = replace(
        world.store.graph().model("r1"),
        id=name,
        created_us=now_us(),
        digest=f"{len(name):064x}",
        fisher_digest="",
        fisher_scale=None,
        provenance=None,
        status=ModelStatus.ACTIVE,
    )
    kind = InheritanceKind.TRANSFER
    world.store.add_model(record, [Inheritance(parent, name, kind) for parent in parents])


def test_only_campaigns_that_a_new_version_may_join_are_planned_anew(
    world: World, planned: list[str]
) -> None:
    for id, root in (("wide", "r1"), ("narrow", "r4")):
        world.coordinator.submit(make_request({root: ("dog",)}, id))
        world.coordinator.run(id)
    open_campaigns = OpenCampaigns(world.coordinator)
    assert open_campaigns() == {}
    planned.clear()

    add(world, "apart")
    add(world, "below-s", "s")
    assert open_campaigns() == {}
    assert planned == []
    add(world, "below-r3", "r3")
    assert list(open_campaigns()) == ["wide"]
    assert planned == ["wide"]
    planned.clear()
    assert list(open_campaigns()) == ["wide"]
    assert planned == []


def test_a_version_that_joins_below_another_that_is_new_is_found(
    world: World, planned: list[str]
) -> None:
    world.coordinator.submit(make_request({"r4": ("dog",)}, "narrow"))
    world.coordinator.run("narrow")
    open_campaigns = OpenCampaigns(world.coordinator)
    open_campaigns()
    planned.clear()
    add(world, "child", "r4")
    add(world, "grandchild", "child")
    assert list(open_campaigns()) == ["narrow"]
    assert planned == ["narrow"]
    assert {"child", "grandchild"} <= world.store.tasks("narrow").keys()


def test_restored_version_is_planned_for_later_campaigns(world: World, planned: list[str]) -> None:
    def fail_at(request_id: str) -> None:
        world.transport.twists["anna", "train.unlearn"] = broken
        world.store.transition(request_id, CampaignEvent.RESUME, now_us() - 1)
        world.coordinator.run(request_id)
        assert world.store.campaign(request_id).state is CampaignState.PARTIAL
        world.transport.twists.clear()

    world.coordinator.submit(make_request({"r4": ("dog",)}, "older"))
    fail_at("older")
    world.coordinator.submit(make_request({"r4": ("cat",)}, "younger"))
    world.coordinator.run("younger")
    fail_at("older")
    assert world.states("older") == {"r4": TaskState.EXEMPT, "r4~younger": TaskState.FAILED}
    open_campaigns = OpenCampaigns(world.coordinator)
    open_campaigns()
    planned.clear()
    world.store.roll_back("younger")
    world.coordinator.run("younger")
    assert list(open_campaigns()) == ["older"]
    assert planned == ["older"]
    assert world.states("older")["r4"] is TaskState.PENDING


def test_what_a_person_does_to_a_campaign_concerns_those_with_models_in_common(
    world: World,
) -> None:
    for id, root in (("whole", "r1"), ("part", "r4"), ("apart", "s")):
        world.coordinator.submit(make_request({root: ("dog",)}, id))
    open_campaigns = OpenCampaigns(world.coordinator)
    before = open_campaigns()
    assert open_campaigns() == before
    open_campaigns.steered("whole")
    after = open_campaigns()
    models = {id: world.store.tasks(id).keys() for id in after}
    near = {id for id in after if models[id] & models["whole"]}
    assert {id for id in after if after[id] != before[id]} == near
    assert {"whole", "part"} <= near < set(after) or near == set(after)
    assert open_campaigns() == after
    open_campaigns.steered("unknown")
    assert open_campaigns() == after
