"""The audit log in the store: what it says, that it is committed with what it tells of, one chain.

`test_postgres` runs the tests that take a `path` or a `store` again.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import Engine

from disinherit.common.audit.chain import Finding
from disinherit.common.audit.export import LONGEST_LINE, read_entry, verify_lines
from disinherit.common.errors import AuditError, RequestError, StoreError
from disinherit.server.states import CampaignEvent, Task, TaskState
from disinherit.server.store.audit_events import request_digest
from disinherit.server.store.database import Database
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import graph_pb2
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.store.test_store import answered, contents, edge, request, successor, version
from tests.support.campaign import AFFECTED, World, broken, gone, make_request, reply_lost
from tests.support.changes import kept_packets, save_packets, settle_campaign, update_all

APPLIED = Task(
    "r",
    "anna",
    TaskState.APPLIED,
    result=pb.ModelResult(
        model_id="r", successor=graph_pb2.ModelRecord(id="r~q", digest="0b"), alpha=0.5
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.db"


@pytest.fixture
def store(path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(path)
    yield store
    store.close()


def exported(store: CoordinatorStore, request_id: str = "", head: str = "") -> list[Any]:
    """The entries of an export that verifies."""
    lines = list(store.audit_lines(request_id))
    verdict = verify_lines([line + b"\n" for line in lines], head)
    assert verdict.problem is None
    assert verdict.header.entries == len(lines) - 1
    return [read_entry(line) for line in lines[1:]]


def kinds(store: CoordinatorStore, request_id: str = "") -> list[str]:
    return [entry.event.kind for entry in exported(store, request_id)]


def fill(store: CoordinatorStore) -> None:
    """r -> m, and a request at r with a task for both."""
    store.add_model(version("r", 1))
    store.add_model(version("m", 2), [edge("r", "m")])
    store.submit(request(), [Task("r", "anna"), Task("m", "anna")], approval=True, actor="operator")


# What it says


def test_campaign_is_logged_from_submission_to_end(world: World) -> None:
    before = len(exported(world.store))
    asked = make_request()
    world.coordinator.submit(asked, approval=True, deadline_us=10**15, actor="operator:ci")
    world.store.transition("q", CampaignEvent.APPROVE, actor="approver:eve")
    world.coordinator.run("q")
    entries = exported(world.store, "q")
    assert exported(world.store)[before:] == entries

    said = [(entry.event.kind, entry.event.model_id) for entry in entries]
    told = [entry.event for entry in entries if entry.event.kind == "notified"]
    assert sorted(event.model_id for event in told) == list(AFFECTED)
    assert {event.actor for event in told} == {"owner:anna", "owner:ben", "owner:cleo"}
    said = [one for one in said if one[0] != "notified"]
    everyone = len(AFFECTED)
    assert said[0] == ("received", "")
    assert said[1 : 1 + everyone] == [("planned", model) for model in AFFECTED]
    assert said[1 + everyone] == ("approved", "")
    assert said[2 + everyone : 4 + everyone] == [("fisher_received", m) for m in ("r1", "r2")]
    for kind, after in (("sent", 4), ("applied", 4 + everyone), ("verified", 4 + 2 * everyone)):
        part = said[after + everyone : after + 2 * everyone]
        assert sorted(part) == [(kind, model) for model in AFFECTED]
    assert said[-1] == ("completed", "")
    assert len(said) == 5 + 4 * everyone

    assert not any(kind == "not_notified" for kind, _ in said)

    received, approved = entries[0].event, entries[1 + everyone].event
    assert (received.actor, approved.actor) == ("operator:ci", "approver:eve")
    assert received.parameters["request_sha256"] == request_digest(asked)
    assert received.parameters["roots"] == ["r1", "r2"]
    assert received.parameters["method"]["alpha"] == "1.0"
    assert received.parameters["deadline_us"] == 10**15
    events = {(entry.event.kind, entry.event.model_id): entry.event for entry in entries}
    packets = {root: events["fisher_received", root].fishers for root in ("r1", "r2")}
    assert packets == {
        root: tuple(packet.digest for packet in sent)
        for root, sent in kept_packets(world.store, "q").items()
    }
    for model, task in world.store.tasks("q").items():
        assert task.result is not None
        applied, sent = events["applied", model], events["sent", model]
        assert applied.actor == f"owner:{task.owner}" == f"owner:{applied.owner}"
        assert applied.digest_before == world.store.graph().model(model).digest
        assert applied.digest_after == task.result.successor.digest
        assert applied.digest_after == events["verified", model].digest_after
        assert applied.parameters["successor"] == f"{model}~q"
        assert "lam" not in applied.parameters  # rows are taken out, whatever the strength
        assert len(applied.fishers) == 1
        assert applied.fishers == sent.fishers
        assert sent.digest_after == ""


def test_versions_are_logged_with_their_parents(store: CoordinatorStore) -> None:
    store.add_model(version("r", 1), actor="operator:ci")
    store.add_model(version("r", 1))  # again: nothing new
    store.add_model(version("r", 1, fisher_digest="0f"))
    store.add_model(version("m", 2), [edge("r", "m")])
    first, completed, child = (entry.event for entry in exported(store))
    assert (first.kind, first.actor, first.owner) == ("model_registered", "operator:ci", "anna")
    assert (first.digest_after, first.parameters) == ("0a", {"parents": 0})
    assert (completed.kind, completed.fishers) == ("model_completed", ("0f",))
    assert child.parameters["parents"] == 1
    assert len(child.parameters["inheritance_sha256"]) == 64
    assert {entry.event.request_id for entry in exported(store)} == {""}


def test_repeated_attempts_are_logged_once(world: World) -> None:
    world.coordinator.submit(make_request())
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.transport.twists["ben", "train.unlearn"] = broken
    for _ in range(3):
        world.coordinator.run("q")
    told = [(e.event.kind, e.event.model_id) for e in exported(world.store, "q")]
    assert len(told) == len(set(told))
    assert ("failed", "r6") in told
    assert ("sent", "r3") in told
    assert ("failed", "r3") not in told
    world.transport.twists.clear()
    world.coordinator.run("q")
    told = [(e.event.kind, e.event.model_id) for e in exported(world.store, "q")]
    assert len(told) == len(set(told))
    assert {("applied", "r3"), ("verified", "r6"), ("completed", "")} <= set(told)


def test_repeated_answer_is_logged_once(world: World) -> None:
    world.coordinator.submit(make_request())
    world.transport.twists["anna", "train.unlearn"] = reply_lost
    world.coordinator.run("q")
    world.transport.twists.clear()
    world.coordinator.run("q")
    told = kinds(world.store, "q")
    assert told.count("applied") == told.count("verified") == len(AFFECTED)
    assert told.count("completed") == 1
    # Where somebody has all of them asked again, that they are verified again is told again.
    world.coordinator.run("q", resend=True)
    assert kinds(world.store, "q").count("verified") == 2 * len(AFFECTED)


def test_decisions_are_logged_once_with_their_actors(store: CoordinatorStore) -> None:
    fill(store)
    for decision in ("APPROVE", "PAUSE", "RESUME", "ABORT"):
        for _ in range(2):
            store.transition("q", CampaignEvent[decision], actor=f"approver:{decision}")
    told = [(e.event.kind, e.event.actor) for e in exported(store, "q")][3:]
    assert told == [
        ("approved", "approver:APPROVE"),
        ("paused", "approver:PAUSE"),
        ("resumed", "approver:RESUME"),
        ("not_notified", "coordinator"),
        ("not_notified", "coordinator"),
        ("aborted", "approver:ABORT"),
    ]


def test_new_deadline_is_logged(store: CoordinatorStore) -> None:
    fill(store)
    store.transition("q", CampaignEvent.APPROVE)
    store.transition("q", CampaignEvent.RESUME, deadline_us=7)
    assert settle_campaign(store, "q").state == "partial"
    told = [entry for entry in exported(store, "q") if entry.event.kind != "not_notified"][-2:]
    assert [entry.event.kind for entry in told] == ["resumed", "partial"]
    assert told[0].event.parameters == {"deadline_us": 7}


def test_free_text_and_class_names_are_not_logged(world: World) -> None:
    asked = make_request()
    asked.reason = "Jane Roe has moved away"
    world.coordinator.submit(asked)
    world.transport.twists["ben", "train.unlearn"] = broken  # "disk on fire"
    world.coordinator.run("q")
    log = b"".join(world.store.audit_lines()).lower()
    for word in (b"jane", b"disk", b"fire", b"cat", b"owl"):
        assert word not in log
    other = make_request()
    other.reason = "another"
    assert request_digest(other) == request_digest(asked)
    assert request_digest(make_request({"r1": ("owl",)})) != request_digest(asked)


# With what it tells of, or not at all


def moved(store: CoordinatorStore) -> None:
    store.transition("q", CampaignEvent.APPROVE)


CHANGES: dict[str, Callable[[CoordinatorStore], object]] = {
    "add_model": lambda store: store.add_model(version("n", 3), [edge("r", "n")]),
    "submit": lambda store: store.submit(request("p"), [Task("r", "anna")]),
    "transition": moved,
    "update_answered": lambda store: answered(store, APPLIED, successor()),
    "update_all": lambda store: update_all(
        store, "q", [Task(model, "anna", TaskState.SENT) for model in "rm"]
    ),
    "save_packets": lambda store: save_packets(store, "q", "r", []),
}


def everything(store: CoordinatorStore) -> object:
    return contents(store), [str(one) for one in store.campaigns()], list(store.audit_lines())


@pytest.mark.parametrize("change", CHANGES)
def test_change_that_cannot_be_logged_is_not_committed(
    change: str, store: CoordinatorStore
) -> None:
    fill(store)
    before = everything(store)

    def fail(_: Connection, __: object, statement: str, *___: object) -> None:
        if "INSERT INTO audit" in statement:
            raise KeyboardInterrupt

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises((KeyboardInterrupt, StoreError)):
            CHANGES[change](store)
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert everything(store) == before


@pytest.mark.parametrize(
    "change", ["add_model", "submit", "transition", "update_answered", "update_all"]
)
def test_change_that_is_rolled_back_is_not_logged(change: str, store: CoordinatorStore) -> None:
    fill(store)
    before = everything(store)

    def fail(_: Connection) -> None:
        raise KeyboardInterrupt

    event.listen(Engine, "commit", fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            CHANGES[change](store)
    finally:
        event.remove(Engine, "commit", fail)
    assert everything(store) == before
    CHANGES[change](store)
    assert everything(store) != before
    exported(store)


def test_version_refused_by_the_graph_is_not_logged(store: CoordinatorStore) -> None:
    fill(store)
    before = list(store.audit_lines())
    assert "created after" in answered(store, APPLIED, successor(created_us=1))
    with pytest.raises(RequestError):
        store.submit(request(model_id="m"), [])
    assert list(store.audit_lines()) == before


def test_an_entry_that_would_be_too_long_is_refused(store: CoordinatorStore) -> None:
    fill(store)
    roots = [pb.Root(model_id=f"{'r' * 120}{number}") for number in range(LONGEST_LINE // 120)]
    before = everything(store)
    with pytest.raises(AuditError, match="less than"):
        store.submit(pb.UnlearningRequest(id="large", roots=roots), [])
    assert everything(store) == before


# One chain


def test_concurrent_writers_make_one_chain(store: CoordinatorStore, path: Path) -> None:
    fill(store)
    failed: list[BaseException] = []

    def write(name: int) -> None:
        own = CoordinatorStore(path)
        try:
            for number in range(6):
                own.add_model(version(f"n{name}-{number}", 3), [edge("r", f"n{name}-{number}")])
                own.submit(request(f"q{name}-{number}"), [Task("r", "anna")])
        except BaseException as error:
            failed.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    entries = exported(store)
    assert len(entries) == 5 + 4 * 6 * 3
    for name, number in itertools.product(range(4), range(6)):
        assert kinds(store, f"q{name}-{number}") == ["received", "planned"]


def test_an_export_is_the_log_as_it_was_when_it_began(store: CoordinatorStore) -> None:
    fill(store)
    lines = store.audit_lines()
    first = next(lines)
    moved(store)
    rest = list(lines)
    assert verify_lines([line + b"\n" for line in [first, *rest]]).problem is None
    assert len(rest) == 5
    assert len(list(store.audit_lines())) == 7


def test_an_export_in_many_parts_is_whole(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    for number in range(7):
        store.add_model(version(f"n{number}", 3))
    whole = exported(store)
    monkeypatch.setattr("disinherit.server.store.audit._AT_A_TIME", 3)
    assert exported(store) == whole
    assert len(exported(store, "q")) == 3


def test_a_head_that_was_noted_stays_in_the_log(store: CoordinatorStore) -> None:
    assert exported(store) == []
    fill(store)
    head = exported(store)[-1].hash
    moved(store)
    assert len(exported(store, head=head)) == 6
    of_request = exported(store, "q")[-2].hash
    assert len(exported(store, "q", of_request)) == 4


def test_export_of_an_unknown_request_is_refused(store: CoordinatorStore) -> None:
    with pytest.raises(RequestError, match="'nobody'"):
        list(store.audit_lines("nobody"))


def test_log_changed_in_the_database_is_detected(store: CoordinatorStore, path: Path) -> None:
    fill(store)
    database = Database(path)
    with database.writing() as db:
        row = db.execute(text("SELECT entry FROM audit WHERE sequence = 3")).scalar_one()
        forged = bytes(row).replace(b'"operator"', b'"mallory"')
        assert forged != row
        db.execute(text("UPDATE audit SET entry = :entry WHERE sequence = 3"), {"entry": forged})
    problem = verify_lines([line + b"\n" for line in store.audit_lines()]).problem
    assert problem is not None
    assert (problem.sequence, problem.finding) == (3, Finding.CHANGED)
    with database.writing() as db:
        db.execute(text("UPDATE audit SET entry = :entry WHERE sequence = 5"), {"entry": b"{}"})
    database.close()
    before = contents(store)
    with pytest.raises(StoreError, match="backup"):
        moved(store)
    assert contents(store) == before
