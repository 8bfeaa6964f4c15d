"""What watches of the fleet and of requests say, over real gRPC."""

import threading
from collections.abc import Collection, Iterator
from typing import Any

import grpc
import pytest
from sqlalchemy import Connection

from disinherit.common.audit.export import read_entry
from disinherit.common.errors import StoreError
from disinherit.server.service import feed as feeds
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.presence import Details
from disinherit.server.store.status import RequestStatus, find_statuses
from disinherit.v1 import coordinator_pb2 as pb
from tests.server.service.test_calls import approve, await_end, refused, submit
from tests.support.agent import wait_for
from tests.support.campaign import broken
from tests.support.service import Running


class Watching:
    """A watch of the fleet, read by a thread."""

    def __init__(self, running: Running, who: str = "operator", **asked: Any) -> None:
        self.events: list[pb.FleetEvent] = []
        self.error: Any = None
        self.stream = running.client(who).WatchFleet(pb.WatchFleetRequest(**asked), timeout=60)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self.stream:
                self.events.append(event)
        except grpc.RpcError as error:
            self.error = error

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def await_kind(self, kind: str, number: int = 1) -> None:
        wait_for(lambda: self.kinds().count(kind) >= number)

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str | None:
    """SQLite, where a test does not ask for another one."""
    named = getattr(request, "param", "sqlite")
    return None if named == "sqlite" else request.getfixturevalue(named)


@pytest.fixture(autouse=True)
def _soon(running: Running) -> None:
    running.service._feed._seconds = 0.05


@pytest.fixture
def watching(running: Running) -> Iterator[Watching]:
    one = Watching(running)
    one.await_kind("caught_up")
    yield one
    one.stream.cancel()
    one.join()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_watch_tells_a_whole_campaign_as_the_log_has_it(
    running: Running, watching: Watching
) -> None:
    submit(running)
    approve(running)
    await_end(running)
    watching.await_kind("completed")
    entries = [read_entry(line) for line in list(running.world.store.audit_lines())[1:]]
    entries = [entry for entry in entries if entry.event.request_id == "q"]
    told = watching.events[1:]
    assert [(one.sequence, one.kind, one.model_id, one.time_us, one.actor) for one in told] == [
        (
            entry.sequence,
            entry.event.kind,
            entry.event.model_id,
            entry.event.time_us,
            entry.event.actor,
        )
        for entry in entries
    ]
    of_request = {one.kind: (one.state, one.text) for one in told if not one.model_id}
    assert of_request == {
        "received": ("awaiting_approval", "the request was submitted"),
        "approved": ("running", "the request was approved"),
        "completed": ("complete", "the campaign is complete"),
    }
    (verified,) = (one for one in told if one.kind == "verified" and one.model_id == "r3")
    assert (verified.owner, verified.state) == ("cleo", "verified")
    assert verified.text == "r3 of cleo is verified"


def test_a_watch_goes_on_after_any_event(running: Running) -> None:
    submit(running)
    approve(running)
    await_end(running)
    whole = Watching(running, after_sequence=0)
    whole.await_kind("caught_up")
    past = whole.events[:-1]
    assert [one.sequence for one in past] == list(range(1, len(past) + 1))
    for at in (1, len(past) // 2, len(past)):
        again = Watching(running, after_sequence=past[at - 1].sequence)
        again.await_kind("caught_up")
        assert again.events[:-1] == past[at:]
        assert again.events[-1].sequence == len(past)
    of_other = Watching(running, after_sequence=0, request_id="other")
    of_other.await_kind("caught_up")
    assert len(of_other.events) == 1
    mine = Watching(running, after_sequence=0, request_id="q")
    mine.await_kind("caught_up")
    assert mine.events[:-1] == [one for one in past if one.request_id == "q"]
    beyond = pb.WatchFleetRequest(after_sequence=len(past) + 1)
    client = running.client("viewer")
    text = refused(lambda: next(client.WatchFleet(beyond)), grpc.StatusCode.INVALID_ARGUMENT)
    assert f"which has {len(past)}, but got {len(past) + 1}" in text


def test_owners_that_come_and_go_are_told(running: Running, watching: Watching) -> None:
    attendance = running.world.store.attendance("agent")
    wait_for(lambda: running.service._feed._online is not None)
    attendance.keep({"anna": Details()})
    watching.await_kind("owner_online")
    attendance.keep({})
    watching.await_kind("owner_offline")
    assert [one.owner for one in watching.events[1:]] == ["anna", "anna"]
    assert watching.events[-1].text == "anna is not connected any more"


def test_a_failure_is_told_with_its_reason(running: Running, watching: Watching) -> None:
    running.world.transport.twists["cleo", "train.unlearn"] = broken
    submit(running)
    approve(running)
    watching.await_kind("failed")
    (failed,) = (one for one in watching.events if one.kind == "failed")
    assert failed.text == "r3 of cleo failed: owner cleo: disk on fire"


def test_viewers_do_not_learn_who_acts(running: Running) -> None:
    submit(running)
    for who, actor in (("operator", "operator:operator"), ("viewer", "")):
        one = Watching(running, who, after_sequence=0)
        one.await_kind("caught_up")
        (received,) = (event for event in one.events if event.kind == "received")
        assert received.actor == actor


def test_a_reader_that_falls_behind_misses_nothing_of_the_log(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_KEPT", 10)
    store = running.world.store
    feed = running.service._feed
    slow = feed.events(None, "", lambda: True)
    assert next(slow).kind == "caught_up"
    fast = Watching(running)
    fast.await_kind("caught_up")
    for number in range(40):
        with store.writing() as db:
            append(db, AuditKind.CHECKPOINT, parameters={"number": number})
    fast.await_kind("checkpoint", 40)
    assert len(feed._kept) == 10
    first = next(slow)
    told = [first, *(next(slow) for _ in range(40))]
    assert [one.kind for one in told].count("checkpoint") == 40
    sequences = [one.sequence for one in told if one.kind == "checkpoint"]
    assert sequences == list(range(sequences[0], sequences[0] + 40))
    assert "caught_up" in [one.kind for one in told]  # again, as owners may have come or gone
    slow.close()  # type: ignore[attr-defined]
    fast.stream.cancel()


def test_many_watches_read_the_store_once(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(running)
    client = running.client("viewer")
    watches = [client.WatchRequest(pb.GetRequestRequest(id="q")) for _ in range(6)]
    assert {next(watch).state for watch in watches} == {pb.CAMPAIGN_STATE_AWAITING_APPROVAL}
    feed = running.service._feed
    reads: list[list[str]] = []

    def read(db: Connection, requests: Collection[str]) -> dict[str, RequestStatus]:
        reads.append(list(requests))
        return find_statuses(db, requests)

    monkeypatch.setattr(feeds, "find_statuses", read)
    turn = feed._turn
    wait_for(lambda: feed._turn > turn + 2)
    assert all(read == ["q"] for read in reads)
    assert len(reads) <= feed._turn - turn
    approve(running)
    assert {list(watch)[-1].state for watch in watches} == {pb.CAMPAIGN_STATE_COMPLETE}


def test_watches_end_when_the_coordinator_stops(running: Running, watching: Watching) -> None:
    submit(running)
    watch = running.client("viewer").WatchRequest(pb.GetRequestRequest(id="q"))
    next(watch)
    running.service.stop(grace=20.0)
    watching.join()
    assert watching.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "being stopped" in watching.error.details()
    text = refused(lambda: next(watch), grpc.StatusCode.UNAVAILABLE)
    assert "being stopped" in text


def test_a_listener_that_leaves_frees_its_place(running: Running) -> None:
    one = Watching(running)
    one.await_kind("caught_up")
    assert running.service._feed._listeners == 1
    one.stream.cancel()
    wait_for(lambda: running.service._feed._listeners == 0)


def test_a_failing_store_ends_watches_and_not_the_feed(
    running: Running, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(feeds, "entries_after", fail)
        watching.join()
        assert watching.error.code() is grpc.StatusCode.UNAVAILABLE
    again = Watching(running)
    again.await_kind("caught_up")
    submit(running)
    again.await_kind("received")
    again.stream.cancel()
