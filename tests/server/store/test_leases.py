"""Leases: one coordinator drives a campaign at a time, and a former one stores nothing."""

import functools
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from disinherit.common.errors import CampaignError, RequestError, StoreError
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.server.store.leases import Lease, held
from disinherit.server.transport.base import Answer, Ask
from tests.support.campaign import AFFECTED, World, make_request
from tests.support.changes import save_packets, settle_campaign, update_all, update_answered

SOON = 0.05
LONG = 600.0


def hold(
    world: World, holder: str, seconds: float, patience: float = 0.0
) -> AbstractContextManager[Lease]:
    acquire = functools.partial(world.store.acquire_lease, "q", holder, seconds)
    return held(world.store, acquire, seconds, patience)


@pytest.fixture
def world(world: World) -> World:
    world.coordinator.submit(make_request())
    return world


def test_a_lease_is_given_to_one_at_a_time_with_a_rising_token(world: World) -> None:
    first = world.store.acquire_lease("q", "one", LONG)
    for holder in ("two", "one"):
        with pytest.raises(
            CampaignError, match="no other coordinator to drive campaign 'q', but one does"
        ):
            world.store.acquire_lease("q", holder, LONG)
    world.store.release_lease(first)
    assert world.store.acquire_lease("q", "two", LONG).token > first.token


def test_a_lease_of_an_unknown_request_is_refused(world: World) -> None:
    with pytest.raises(RequestError, match="'nothing'"):
        world.store.acquire_lease("nothing", "one", LONG)


def test_leases_of_different_campaigns_are_independent(world: World) -> None:
    world.coordinator.submit(make_request(request_id="p"))
    assert world.store.acquire_lease("q", "one", LONG).request_id == "q"
    assert world.store.acquire_lease("p", "two", LONG).request_id == "p"


@pytest.mark.parametrize("lost", ["taken over", "released"])
def test_nothing_is_stored_with_a_lease_that_was_lost(world: World, lost: str) -> None:
    stale = world.store.acquire_lease("q", "slow", SOON if lost == "taken over" else LONG)
    if lost == "taken over":
        time.sleep(2 * SOON)
        world.store.acquire_lease("q", "quick", LONG)
    else:
        world.store.release_lease(stale)
    before, campaign = world.knowledge(), world.store.campaign("q")
    task = Task("r1", "anna", TaskState.FAILED, "no")
    writes: tuple[Callable[[], object], ...] = (
        lambda: update_answered(world.store, "q", [], lease=stale),
        lambda: update_all(world.store, "q", [task], lease=stale),
        lambda: world.store.submit(make_request(), [task], lease=stale),
        lambda: save_packets(world.store, "q", "r1", [], lease=stale),
        lambda: settle_campaign(world.store, "q", lease=stale),
        lambda: world.store.renew_lease(stale, LONG),
        lambda: world.store.release_lease(stale),
    )
    for write in writes:
        with pytest.raises(StoreError, match="slow to drive campaign 'q' with token"):
            write()
    assert world.knowledge() == before
    assert world.store.campaign("q") == campaign


def test_expired_lease_can_be_renewed_if_nobody_took_it(world: World) -> None:
    lease = world.store.acquire_lease("q", "slow", SOON)
    time.sleep(2 * SOON)
    world.store.renew_lease(lease, LONG)
    with pytest.raises(CampaignError):
        world.store.acquire_lease("q", "quick", LONG)


def test_a_lease_is_renewed_while_it_is_held_and_given_back_after(world: World) -> None:
    with hold(world, "one", 0.3):
        time.sleep(0.6)
        with pytest.raises(CampaignError):
            world.store.acquire_lease("q", "two", LONG)
    world.store.acquire_lease("q", "two", LONG)


def test_a_lease_that_runs_out_is_waited_for_as_long_as_there_is_patience(world: World) -> None:
    world.store.acquire_lease("q", "dead", 0.3)
    with pytest.raises(CampaignError), hold(world, "quick", LONG):
        pass
    with hold(world, "patient", LONG, patience=30.0) as lease:
        assert lease.holder == "patient"


def test_a_lease_is_given_back_when_a_pass_fails(world: World) -> None:
    def die(_: Ask, __: Callable[[], Answer]) -> Answer:
        raise KeyboardInterrupt

    world.transport.twists["anna", "query.fisher"] = die
    with pytest.raises(KeyboardInterrupt):
        world.coordinator.run("q")
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"


def test_one_of_two_concurrent_coordinators_drives(world: World) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(_: Ask, honest: Callable[[], Answer]) -> Answer:
        inside.set()
        assert go_on.wait(60)
        return honest()

    world.transport.twists["anna", "train.unlearn"] = wait
    outcomes: list[str] = []
    first = threading.Thread(target=lambda: outcomes.append(world.coordinator.run("q").outcome))
    first.start()
    assert inside.wait(60)
    with world.again() as other:
        with pytest.raises(CampaignError, match="no other coordinator to drive campaign 'q'"):
            other.coordinator.run("q")
        assert other.transport.actions() == []
    go_on.set()
    first.join()
    assert outcomes == ["complete"]
    assert world.states() == dict.fromkeys(AFFECTED, TaskState.VERIFIED)


def test_a_coordinator_that_slept_past_its_lease_stores_nothing_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_over(_: Ask, honest: Callable[[], Answer]) -> Answer:
        answer = honest()
        time.sleep(2 * SOON)
        assert other.coordinator.run("q").outcome in ("complete", "unchanged")
        return answer

    # As on a suspended machine: nothing is renewed.
    monkeypatch.setattr(world.store, "renew_lease", lambda *_: None)
    sleepy = Coordinator(world.store, world.transport, lease_seconds=SOON)
    world.transport.twists["ben", "train.unlearn"] = taken_over
    with world.again() as other, pytest.raises(StoreError, match="Nothing was stored"):
        sleepy.run("q")
    assert world.states() == dict.fromkeys(AFFECTED, TaskState.VERIFIED)
    assert world.store.campaign("q").state is CampaignState.COMPLETE
