"""What connected agents cost that have nothing to do, counted: no threads, and no comparisons."""

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.common.wire.messages import PROTOCOL
from disinherit.server.agents import revocation
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.hub import Hub, Session
from disinherit.server.agents.transport import AgentTransport
from disinherit.server.ports.event_loop import waited
from disinherit.server.store.presence import (
    Attendance,
    Details,
    MeasuredDownload,
    find_presence,
)
from disinherit.server.transport.base import Ask
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1.agents_pb2_grpc import AgentsStub
from disinherit.v1.unlearning_pb2 import EvaluateTask
from tests.support.agent import AgentsSide, wait_for

OWNERS = ["anna", "ben", "cleo", "dora", "emil", "fred"]


@pytest.fixture
def side(tmp_path: Path) -> Iterator[AgentsSide]:
    with AgentsSide(tmp_path) as side:
        yield side


class LightAgents:
    """Connected agents in the event loop, which take no threads themselves.

    Args:
        side: where they connect.
    """

    def __init__(self, side: AgentsSide) -> None:
        self._side = side
        self._streams: list[tuple[Any, Any]] = []

    async def connect(self, owner: str, credentials: grpc.ChannelCredentials) -> None:
        address = f"127.0.0.1:{self._side.server.port}"
        channel: Any = grpc.aio.secure_channel(address, credentials)
        stub: Any = AgentsStub(channel)
        stream = stub.Serve()
        await stream.write(pb.FromAgent(hello=pb.Hello(protocol=PROTOCOL, owner=owner)))
        assert (await stream.read()).HasField("welcome")
        self._streams.append((channel, stream))

    async def close(self) -> None:
        for channel, stream in self._streams:
            stream.cancel()
            await channel.close()


def test_a_connected_agent_takes_no_thread(side: AgentsSide) -> None:
    agents = LightAgents(side)
    identities = {owner: side.enrolled(owner) for owner in OWNERS}
    waited(agents.connect(OWNERS[0], identities[OWNERS[0]].credentials()))
    before = threading.active_count()
    for owner in OWNERS[1:]:
        waited(agents.connect(owner, identities[owner].credentials()))
    assert side.connected() == OWNERS
    # One after the other, each may have made one of the few that look into the database.
    assert threading.active_count() <= before + 3
    assert not [one.name for one in threading.enumerate() if "from" in one.name]
    waited(agents.close())
    wait_for(lambda: side.connected() == [])


def test_a_connected_agent_fetches_without_a_look_into_the_database(
    side: AgentsSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    is_revoked = side.enrolment.is_revoked

    def watched(owner: str, key: str) -> bool:
        looked.append(owner)
        return is_revoked(owner, key)

    monkeypatch.setattr(side.enrolment, "is_revoked", watched)
    agents = LightAgents(side)
    anna, ben = side.enrolled("anna").credentials(), side.enrolled("ben").credentials()
    waited(agents.connect("anna", anna))
    for owner, credentials in (("anna", anna), ("ben", ben)):
        with grpc.secure_channel(f"127.0.0.1:{side.server.port}", credentials) as channel:
            for _ in range(5):
                with side.blobs.offered(owner, {"00": b"packet"}):
                    (chunk,) = AgentsStub(channel).Fetch(pb.FetchRequest(digest="00"), timeout=20.0)
                    assert chunk.data == b"packet"
    # Once to connect; and who is not connected is looked up for each.
    assert looked == ["anna", *["ben"] * 5]
    waited(agents.close())


def test_who_is_there_is_put_together_again_only_after_a_change() -> None:
    hub = Hub()
    sessions = [Session(owner) for owner in OWNERS]
    for session in sessions:
        hub.connect(session)
    present = hub.present()
    assert list(present) == OWNERS
    assert hub.present() is present
    hub.measured("ben", MeasuredDownload(10, 1))
    assert hub.present()["ben"].download.size == 10
    assert present["ben"].download.size == 0  # what was given out stays as it was
    hub.leave(sessions[0])
    assert list(hub.present()) == OWNERS[1:]
    hub.connect(Session("anna"))
    assert set(hub.present()) == set(OWNERS)


class ComparedOwners(dict[str, Details]):
    """Owners that count how often somebody compared them all."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        self.compared += 1
        return super().__eq__(other)

    __hash__ = None


def test_attendance_compares_nothing_while_nothing_changes(side: AgentsSide) -> None:
    attendance = Attendance(side.database, "agent")
    connected = ComparedOwners(dict.fromkeys(OWNERS, Details()))
    for _ in range(5):
        attendance.keep(connected)
    assert connected.compared == 0
    with side.database.reading() as db:
        assert set(find_presence(db, online=True)) == set(OWNERS)


class Looked(Hub):
    """A hub that counts the sessions that were looked at."""

    looked = 0

    def sessions(self, owners: Iterable[str] | None = None) -> list[Session]:
        found = super().sessions(owners)
        self.looked += len(found)
        return found


def test_a_look_for_revoked_agents_looks_at_those_of_revoked_owners_only(
    side: AgentsSide,
) -> None:
    hub = Looked()
    for owner in OWNERS:
        hub.connect(Session(owner, key="00"))
    revocation.refuse_revoked(side.database, hub)
    assert hub.looked == 0
    side.enrolled("dora")
    side.enrolment.revoke("dora")
    revocation.refuse_revoked(side.database, hub)
    assert hub.looked == 1
    assert sorted(hub.present()) == [owner for owner in OWNERS if owner != "dora"]


class Asked(Hub):
    """A hub that counts how often it is asked about one owner."""

    asked = 0

    def away(self, owner: str) -> float:
        self.asked += 1
        return super().away(owner)


def test_while_nobody_answers_only_owners_that_left_are_looked_at() -> None:
    hub = Asked()
    sessions = {owner: Session(owner) for owner in OWNERS}
    for session in sessions.values():
        hub.connect(session)
    asks = [Ask(owner, "evaluate.panel", EvaluateTask()) for owner in OWNERS]
    answers = AgentTransport(hub, Blobs(), grace=0.3).ask(asks, 1.5)
    threading.Timer(0.2, hub.leave, [sessions["ben"]]).start()
    found = list(answers)
    assert hub.asked == 0
    assert {answer.ask.owner for answer in found} == set(OWNERS)
    assert "was lost before it answered" in found[0].error
    assert found[0].ask.owner == "ben"
    assert all("did not answer within 1.5 s" in answer.error for answer in found[1:])
    hub.connect(Session("ben"))
    assert hub.lost(0.0) == set()
    assert hub.away("ben") == 0.0
