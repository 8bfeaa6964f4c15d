"""Owners as the service lists them, with their presence and access."""

from pathlib import Path

import grpc
import pytest

from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.store import presence
from disinherit.server.store.database import Database
from disinherit.server.store.presence import Attendance, Details, MeasuredDownload, find_presence
from disinherit.server.store.schema import prepare
from disinherit.v1 import coordinator_pb2 as pb
from tests.server.service.test_calls import approve, await_end, refused, submit
from tests.support.service import Running


def owners(running: Running, owner: str = "") -> dict[str, pb.Owner]:
    answer = running.client("viewer").ListOwners(pb.ListOwnersRequest(owner=owner))
    return {owner.name: owner for owner in answer.owners}


def attend(running: Running, way: str, *names: str) -> Attendance:
    attendance = running.world.store.attendance(way)
    attendance.keep(dict.fromkeys(names, Details("0.2.0", "22:00-06:00")))
    return attendance


def test_owners_are_listed_with_their_models_and_pending_tasks(running: Running) -> None:
    submit(running)
    found = owners(running)
    assert list(found) == ["anna", "ben", "cleo"]
    assert (found["anna"].models, found["anna"].pending_tasks) == (3, 2)
    assert (found["cleo"].models, found["cleo"].way, found["cleo"].last_seen_us) == (1, "", 0)
    approve(running)
    await_end(running)
    found = owners(running)
    assert (found["anna"].models, found["anna"].active_models) == (5, 3)
    assert [owner.pending_tasks for owner in found.values()] == [0, 0, 0]


def test_pages_of_owners_follow_each_other(running: Running) -> None:
    client = running.client("operator")
    first = client.ListOwners(pb.ListOwnersRequest(page_size=2))
    rest = client.ListOwners(pb.ListOwnersRequest(page_token=first.next_page_token))
    assert [owner.name for owner in (*first.owners, *rest.owners)] == ["anna", "ben", "cleo"]
    assert rest.next_page_token == ""
    assert list(owners(running, owner="ben")) == ["ben"]
    assert owners(running, owner="nobody") == {}
    other = pb.ListOwnersRequest(owner="ben", page_token=first.next_page_token)
    refused(lambda: client.ListOwners(other), grpc.StatusCode.INVALID_ARGUMENT)


def test_an_owner_that_is_connected_is_online_and_says_what_it_runs(running: Running) -> None:
    agents = attend(running, "agent", "anna", "zoe")
    attend(running, "flower", "ben")
    found = owners(running)
    assert [name for name, owner in found.items() if owner.online] == ["anna", "ben", "zoe"]
    assert (found["anna"].way, found["ben"].way) == ("agent", "flower")
    assert (found["anna"].release, found["anna"].hours) == ("0.2.0", "22:00-06:00")
    assert found["zoe"].models == 0
    agents.keep({})
    found = owners(running)
    assert [name for name, owner in found.items() if owner.online] == ["ben"]
    assert found["anna"].last_seen_us >= found["ben"].last_seen_us


def test_what_was_measured_of_an_owner_stays_until_there_is_news(running: Running) -> None:
    def kept(details: Details) -> tuple[int, int, int]:
        running.world.store.attendance("agent").keep({"anna": details})
        anna = owners(running)["anna"]
        return anna.bytes_per_second, anna.downloaded_bytes, anna.download_us

    assert kept(Details()) == (0, 0, 0)
    measured = Details(bytes_per_second=2_000_000, download=MeasuredDownload(5_000_000, 2_500_000))
    assert kept(measured) == (2_000_000, 5_000_000, 2_500_000)
    assert kept(Details()) == (0, 5_000_000, 2_500_000)  # as after a restart
    assert kept(Details(download=MeasuredDownload(3_000_000, 100))) == (0, 3_000_000, 100)


def test_an_owner_of_a_process_that_was_killed_does_not_stay_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000_000]
    monkeypatch.setattr(presence, "now_us", lambda: now[0])

    database = Database(tmp_path / "a.db")
    prepare(database)
    attendance = Attendance(database, "agent")

    def online() -> bool:
        with database.reading() as db:
            return find_presence(db)["anna"].online

    attendance.keep({"anna": Details()})
    now[0] += 60_000_000
    assert online()
    attendance.keep({"anna": Details()})  # confirmed
    now[0] += 60_000_000
    assert online()
    now[0] += 60_000_000  # killed
    assert not online()
    now[0] = 10_000_000  # or the clock was set back
    assert not online()
    database.close()


def test_access_is_that_of_the_last_word(tmp_path: Path, running: Running) -> None:
    authority = CertificateAuthority.open(tmp_path / "authority")
    database = running.world.store._database
    enrolment = Enrolment(database, authority)
    enrolment.invite("dora", 3600.0)
    assert owners(running)["dora"].access == "invited"
    assert owners(running)["dora"].access_us > 0
    enrolment.revoke("dora")
    assert owners(running)["dora"].access == "revoked"
    enrolment.invite("dora", 3600.0)
    assert owners(running)["dora"].access == "invited"
    assert owners(running)["anna"].access == ""
