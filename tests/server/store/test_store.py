"""The coordinator's store: round trips, refusals, atomicity, damage."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from disinherit.common.errors import GraphError, LabelError, RequestError, StoreError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.server.now import now_us
from disinherit.server.states import Answered, Task, TaskState
from disinherit.server.store.audit import last_growth
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.changes import update_all, update_answered

LABELS = ("cat", "dog")


def version(model_id: str, created_us: int, **changes: Any) -> ModelRecord:
    record = ModelRecord(
        model_id, "anna", "aa", LABELS, "0a", created_us, Provenance("pets", {"cat": 2}, "ab")
    )
    return replace(record, **changes)


def successor(model_id: str = "r~q", created_us: int = 9, **changes: Any) -> ModelRecord:
    return version(model_id, created_us, **{"digest": "0b", "provenance": None, **changes})


def edge(parent: str, child: str, weight: float = 1.0, **labels: str) -> Inheritance:
    return Inheritance(parent, child, InheritanceKind.FEDERATED, weight, labels)


def request(request_id: str = "q", model_id: str = "r") -> pb.UnlearningRequest:
    return pb.UnlearningRequest(
        id=request_id, reason="please", roots=[pb.Root(model_id=model_id, classes=["cat"])]
    )


def answered(store: CoordinatorStore, task: Task, made: ModelRecord) -> str:
    """Store one answer, and return why the graph refuses its successor, or `""`."""
    return update_answered(store, "q", [Answered(task, made, ())]).get(task.model_id, "")


def contents(store: CoordinatorStore) -> object:
    """Everything a reader can see."""
    graph = store.graph()
    return graph.models(), graph.edges(), {q: store.tasks(q) for q in store.requests()}


def what_happened(line: bytes) -> dict[str, Any]:
    """An entry of the audit log without when it was written, and what follows from that."""
    entry = json.loads(line)
    return {
        k: v
        for k, v in entry.items()
        if k not in ("hash", "previous", "request_previous", "time_us")
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "what?is#this 100%.db"


@pytest.fixture
def store(path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(path)
    yield store
    store.close()


@pytest.fixture
def campaign(store: CoordinatorStore) -> CoordinatorStore:
    """r -> m, and a request at r with a task for both."""
    store.add_model(version("r", 1))
    store.add_model(version("m", 2), [edge("r", "m")])
    store.submit(request(), [Task("r", "anna"), Task("m", "anna")])
    return store


# --- the graph


def test_the_graph_comes_back_after_reopening(store: CoordinatorStore, path: Path) -> None:
    expected = InheritanceGraph()
    for record, parents in (
        (version("r", 1), []),
        (version("s", 2, status=ModelStatus.RETIRED, fisher_digest="0c"), []),
        (
            version("m", 3, labels=("kitten", "dog"), provenance=None),
            [edge("r", "m", 0.25, cat="kitten"), edge("s", "m", 0.75, cat="kitten")],
        ),
    ):
        store.add_model(record, parents)
        expected.add(record, parents)
    store.close()

    again = CoordinatorStore(path)
    assert again.graph() == expected
    again.close()


def test_the_order_of_arrival_does_not_matter_to_the_order_of_models(
    store: CoordinatorStore,
) -> None:
    store.add_model(version("young", 5))
    store.add_model(version("old", 1))
    assert [record.id for record in store.graph().models()] == ["old", "young"]


@pytest.mark.parametrize(
    ("record", "parents", "message"),
    [
        (version("m", 2), [("nobody", "m")], "'nobody'"),
        (version("m", 1), [("r", "m")], "younger"),
        (version("m", 2), [("r", "m", 0.5)], "sum to 1"),
        (version("m", 2), [("r", "m", 0.5), ("r", "m", 0.5)], "one edge"),
        (version("m", 2), [("r", "n")], "lead to 'm'"),
        (version("m", 2), [("m", "m")], "other than the child"),
        (version("r", 1, digest="0d"), [], "digest of model 'r' to stay"),
        (version("r", 1, owner="ben"), [], "owner of model 'r' to stay"),
        (version("r", 1), [("r", "r")], "Expected"),
    ],
)
def test_what_the_graph_refuses_is_not_stored(
    store: CoordinatorStore, record: ModelRecord, parents: list[tuple[Any, ...]], message: str
) -> None:
    store.add_model(version("r", 1))
    before = contents(store)
    with pytest.raises(GraphError, match=message):
        store.add_model(record, [edge(*one) for one in parents])
    assert contents(store) == before


def test_a_label_mapping_that_does_not_fit_is_not_stored(store: CoordinatorStore) -> None:
    store.add_model(version("r", 1))
    with pytest.raises(LabelError, match="ant"):
        store.add_model(version("m", 2), [edge("r", "m", cat="ant")])
    assert "m" not in store.graph()


def test_a_known_version_is_completed_and_keeps_its_parents(store: CoordinatorStore) -> None:
    store.add_model(version("r", 1))
    store.add_model(version("m", 2), [edge("r", "m")])
    completed = version("m", 2, fisher_digest="ff", status=ModelStatus.RETIRED)
    store.add_model(completed)
    store.add_model(completed, [edge("r", "m")])
    graph = store.graph()
    assert graph.model("m") == completed
    assert graph.parents("m") == (edge("r", "m"),)


def test_a_known_version_is_not_given_other_parents(store: CoordinatorStore) -> None:
    store.add_model(version("r", 1))
    store.add_model(version("s", 2))
    store.add_model(version("m", 3), [edge("r", "m")])
    with pytest.raises(GraphError, match="to stay as recorded, from r, but got another"):
        store.add_model(version("m", 3, fisher_digest="ff"), [edge("s", "m")])
    assert store.graph().parents("m") == (edge("r", "m"),)
    assert store.graph().model("m").fisher_digest == ""


def test_lineage_may_arrive_after_the_version(store: CoordinatorStore) -> None:
    store.add_model(version("m", 2))
    store.add_model(version("r", 1))
    store.add_model(version("m", 2), [edge("r", "m")])
    assert store.graph().affected(["r"]) == ("r", "m")


def growth(store: CoordinatorStore, since: int = -1) -> int:
    with store.reading() as db:
        return last_growth(db, since)


def test_growth_of_the_graph_is_noticed_and_nothing_else(store: CoordinatorStore) -> None:
    seen = [growth(store)]
    store.add_model(version("r", 1))
    seen.append(growth(store, seen[-1]))
    store.add_model(version("m", 2))
    seen.append(growth(store, seen[-1]))
    store.add_model(version("m", 2), [edge("r", "m")])  # what it came from is known only now
    seen.append(growth(store, seen[-1]))
    assert seen == sorted(set(seen))
    store.add_model(version("m", 2))
    store.submit(request("q"), [])
    assert growth(store, seen[-1]) == growth(store) == seen[-1]


def test_several_threads_may_add_at_once(path: Path, store: CoordinatorStore) -> None:
    store.add_model(version("r", 0))
    failed: list[BaseException] = []

    def add(first: int) -> None:
        own = CoordinatorStore(path)
        try:
            for age in range(first, first + 10):
                own.add_model(version(f"m{age}", age), [edge("r", f"m{age}")])
                own.add_model(version("shared", 1), [edge("r", "shared")])
        except BaseException as error:
            failed.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=add, args=(first,)) for first in (1, 11, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(store.graph()) == 32
    assert len(store.graph().edges()) == 31


# --- requests and tasks


def test_a_request_and_its_tasks_come_back(campaign: CoordinatorStore, path: Path) -> None:
    result = pb.ModelResult(model_id="m", outcome=pb.OUTCOME_APPLIED, alpha=0.5)
    done = Task("m", "anna", TaskState.APPLIED, "because", result)
    update_all(campaign, "q", [done])
    campaign.close()

    again = CoordinatorStore(path)
    assert again.request("q") == request()
    assert again.requests() == ["q"]
    assert again.tasks("q") == {"r": Task("r", "anna"), "m": done}
    again.close()


def test_tasks_come_ancestors_first(campaign: CoordinatorStore) -> None:
    assert list(campaign.tasks("q")) == ["r", "m"]


def test_tasks_of_other_requests_stay_apart(campaign: CoordinatorStore) -> None:
    campaign.submit(request("p"), [Task("r", "anna", TaskState.FAILED, "no")])
    update_all(campaign, "q", [Task("r", "anna", TaskState.SENT)])
    assert campaign.tasks("p") == {"r": Task("r", "anna", TaskState.FAILED, "no")}
    assert campaign.tasks("nothing") == {}


def test_requests_come_oldest_first(campaign: CoordinatorStore) -> None:
    campaign.submit(request("a"), [])
    assert campaign.requests() == ["q", "a"]


def test_the_same_request_again_is_not_new(campaign: CoordinatorStore) -> None:
    before = contents(campaign)
    assert campaign.submit(request(), []) is False
    assert contents(campaign) == before


def test_a_known_request_is_given_further_tasks(campaign: CoordinatorStore) -> None:
    campaign.add_model(version("n", 3), [edge("m", "n")])
    late = [Task("m", "anna", TaskState.EXEMPT, "why"), Task("n", "anna")]
    assert campaign.submit(request(), late) is False
    assert campaign.tasks("q") == {"r": Task("r", "anna"), "m": late[0], "n": late[1]}


def test_another_request_under_a_used_id_is_refused(campaign: CoordinatorStore) -> None:
    before = contents(campaign)
    with pytest.raises(RequestError, match="'q' was already used for another request"):
        campaign.submit(request(model_id="m"), [Task("m", "anna", TaskState.FAILED, "no")])
    assert contents(campaign) == before


def test_an_unknown_request_is_refused(store: CoordinatorStore) -> None:
    with pytest.raises(RequestError, match="got 'q'"):
        store.request("q")


def test_several_tasks_change_together_or_not_at_all(campaign: CoordinatorStore) -> None:
    before = contents(campaign)
    tasks = [Task("r", "anna", TaskState.SENT), Task("nobody", "anna", TaskState.SENT)]
    with pytest.raises(StoreError):
        update_all(campaign, "q", tasks)
    assert contents(campaign) == before
    update_all(campaign, "q", [replace(t, model_id=m) for t, m in zip(tasks, "rm", strict=True)])
    assert {task.state for task in campaign.tasks("q").values()} == {TaskState.SENT}


# --- what unlearning made


APPLIED = Task("r", "anna", TaskState.APPLIED)


def test_a_successor_comes_with_its_edge_and_supersedes(campaign: CoordinatorStore) -> None:
    answered(campaign, APPLIED, successor())
    graph = campaign.graph()
    assert graph.model("r~q") == successor()
    assert graph.parents("r~q") == (Inheritance("r", "r~q", InheritanceKind.UNLEARNED),)
    assert graph.model("r") == version("r", 1, status=ModelStatus.SUPERSEDED)
    assert campaign.tasks("q")["r"] == APPLIED


def test_recording_the_same_successor_again_changes_nothing(campaign: CoordinatorStore) -> None:
    answered(campaign, APPLIED, successor())
    campaign.add_model(successor(fisher_digest="ff"))
    before = contents(campaign)
    answered(campaign, APPLIED, successor())
    assert contents(campaign) == before


def test_a_successor_registered_before_its_answer_came_is_given_its_edge(
    campaign: CoordinatorStore,
) -> None:
    campaign.add_model(successor(fisher_digest="ff"))
    answered(campaign, APPLIED, successor())
    graph = campaign.graph()
    assert graph.affected(["r"], cleansed=["r~q"]) == ("r", "m")
    assert graph.model("r~q").fisher_digest == "ff"


def test_a_retired_version_stays_retired(campaign: CoordinatorStore) -> None:
    campaign.add_model(version("r", 1, status=ModelStatus.RETIRED))
    answered(campaign, APPLIED, successor())
    assert campaign.graph().model("r").status is ModelStatus.RETIRED


TRAINED = Provenance("pets", {"cat": 1})


@pytest.mark.parametrize(
    ("reported", "message"),
    [
        (successor(owner="ben"), "to have its owner 'anna', but got 'ben'"),
        (successor(architecture="bb"), "to have its architecture"),
        (successor(labels=("dog", "cat")), "to have its labels"),
        (successor(digest=""), "digest of 'r~q', but got none"),
        (successor(status=ModelStatus.RETIRED), "which is retired"),
        (successor(provenance=TRAINED), "not to be trained"),
        (successor(created_us=1), "created after 1 us"),
        (successor(created_us=now_us() + 2 * 86_400_000_000), "not in the future"),
        (successor("m", 2, digest="0a"), "'m' is known, derived from r"),
        (successor("r", 1), "created after"),
        (successor("child", 3, digest="0a"), "known, derived from m"),
        (successor("orphan", 3, digest="0d"), "digest of model 'orphan' to stay"),
        (successor("trained", 3, digest="0a"), "and was trained"),
    ],
)
def test_impossible_successor_changes_neither_graph_nor_task(
    campaign: CoordinatorStore, reported: ModelRecord, message: str
) -> None:
    campaign.add_model(version("child", 3, provenance=None), [edge("m", "child")])
    campaign.add_model(version("orphan", 3, provenance=None))
    campaign.add_model(version("trained", 3))
    before = contents(campaign)
    assert message in answered(campaign, APPLIED, reported)
    assert contents(campaign) == before


def test_batch_of_answers_is_stored_like_single_ones(
    campaign: CoordinatorStore, tmp_path: Path
) -> None:
    other = CoordinatorStore(tmp_path / "other.db")
    for record, edges in ((version("r", 1), []), (version("m", 2), [edge("r", "m")])):
        other.add_model(record, edges)
    other.submit(request(), [Task("r", "anna"), Task("m", "anna")])
    answers = [
        Answered(APPLIED, successor(), ("aa",)),
        Answered(replace(APPLIED, model_id="m"), successor("m~q"), ("bb",)),
    ]
    assert update_answered(campaign, "q", answers) == {}
    for one in answers:
        assert update_answered(other, "q", [one]) == {}
    assert contents(campaign) == contents(other)
    told = [
        [what_happened(line) for line in list(s.audit_lines("q"))[1:]] for s in (campaign, other)
    ]
    other.close()
    assert told[0] == told[1]


def test_refused_successor_does_not_affect_others(campaign: CoordinatorStore) -> None:
    twin = replace(APPLIED, model_id="m")
    answers = [Answered(twin, successor(owner="ben"), ()), Answered(APPLIED, successor(), ())]
    refused = update_answered(campaign, "q", answers)
    assert list(refused) == ["m"]
    assert "to have its owner 'anna', but got 'ben'" in refused["m"]
    assert {m: t.state for m, t in campaign.tasks("q").items()} == {
        "r": TaskState.APPLIED,
        "m": TaskState.PENDING,
    }
    kinds = [json.loads(line).get("kind") for line in campaign.audit_lines("q")]
    assert kinds == [None, "received", "planned", "planned", "applied"]


def test_a_version_has_one_successor(campaign: CoordinatorStore) -> None:
    answered(campaign, APPLIED, successor())
    before = contents(campaign)
    told = answered(campaign, Task("r", "anna", TaskState.VERIFIED), successor("r~p"))
    assert "'r~q' is recorded and its owner reports 'r~p'" in told
    assert contents(campaign) == before


def test_two_versions_cannot_become_the_same(campaign: CoordinatorStore) -> None:
    answered(campaign, APPLIED, successor())
    told = answered(campaign, replace(APPLIED, model_id="m"), successor())
    assert "known, derived from r" in told


def test_a_task_of_an_unknown_model_is_refused(campaign: CoordinatorStore) -> None:
    before = contents(campaign)
    assert "'x'" in answered(campaign, replace(APPLIED, model_id="x"), successor())
    assert contents(campaign) == before


@pytest.mark.parametrize(
    "failing", ["INSERT INTO model", "INSERT INTO inheritance", "UPDATE model"]
)
def test_a_failure_in_the_middle_leaves_nothing_behind(
    campaign: CoordinatorStore, failing: str
) -> None:
    before = contents(campaign)

    def fail(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith(failing):
            raise KeyboardInterrupt

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            answered(campaign, APPLIED, successor())
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert contents(campaign) == before


# --- databases that cannot be used


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "notes.txt"
    garbage.write_bytes(b"Dear diary, " * 500)
    with pytest.raises(StoreError, match=r"notes\.txt.*not a database"):
        CoordinatorStore(garbage)
    assert garbage.read_bytes() == b"Dear diary, " * 500


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file"):
        CoordinatorStore(tmp_path / "missing" / "coordinator.db")


@pytest.mark.parametrize("url", ["nonsense", "nosuchdatabase://host/name"])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=url):
        CoordinatorStore(url)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(StoreError) as caught:
        CoordinatorStore("nosuchdatabase://anna:secret@host/name")
    assert "secret" not in str(caught.value)
    assert "anna:***@host" in str(caught.value)


def test_a_url_names_a_file_too(tmp_path: Path) -> None:
    store = CoordinatorStore(f"sqlite:///{tmp_path / 'coordinator.db'}")
    store.add_model(version("r", 1))
    store.close()
    again = CoordinatorStore(tmp_path / "coordinator.db")
    assert "r" in again.graph()
    again.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE model SET record = x'ff' WHERE id = 'm'", "ModelRecord.*damaged"),
        ("UPDATE model SET record = x'' WHERE id = 'm'", "sound record"),
        ("UPDATE inheritance SET edge = x'ff'", "Inheritance.*damaged"),
        ("UPDATE inheritance SET edge = x''", "sound edge"),
        ("DELETE FROM model WHERE id = 'r'", "sound inheritance graph"),
        ("DROP TABLE inheritance", "no such table"),
    ],
)
def test_a_damaged_graph_is_a_store_error(
    campaign: CoordinatorStore, path: Path, damage: str, message: str
) -> None:
    run_sql(path, damage)
    with pytest.raises(StoreError, match=message):
        campaign.graph()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE task SET state = 'lost'", "known task state.*'lost'"),
        ("UPDATE task SET result = x'ff'", "ModelResult.*damaged"),
        ("UPDATE request SET request = x'ff'", "UnlearningRequest.*damaged"),
    ],
)
def test_a_damaged_campaign_is_a_store_error(
    campaign: CoordinatorStore, path: Path, damage: str, message: str
) -> None:
    run_sql(path, damage)
    with pytest.raises(StoreError, match=message):
        (campaign.request("q"), campaign.tasks("q"))


def run_sql(path: Path, statement: str) -> None:
    """Change the database behind the store's back, with foreign keys off."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


# --- a file that is gone


def files_of(path: Path) -> list[Path]:
    return [found for found in path.parent.iterdir() if found.name.startswith(path.name)]


def test_a_database_that_is_gone_is_an_error_until_it_is_back(
    campaign: CoordinatorStore, path: Path, tmp_path: Path
) -> None:
    known, away = contents(campaign), tmp_path / "away"
    away.mkdir()
    for found in files_of(path):
        found.rename(away / found.name)
    for _ in range(2):
        with pytest.raises(StoreError, match="unable to open database file"):
            campaign.requests()
        with pytest.raises(StoreError, match="unable to open database file"):
            campaign.add_model(version("x", 3))
    assert files_of(path) == []  # nothing in the way of what comes back
    for found in away.iterdir():
        found.rename(path.parent / found.name)
    assert contents(campaign) == known
    campaign.add_model(version("x", 3))


def test_a_database_that_was_replaced_is_used_from_then_on(
    store: CoordinatorStore, path: Path, tmp_path: Path
) -> None:
    store.add_model(version("r", 1))
    other = CoordinatorStore(tmp_path / "other.db")
    other.add_model(version("x", 1))
    other.close()
    for found in files_of(path):
        found.unlink()
    (tmp_path / "other.db").rename(path)
    assert [record.id for record in store.graph().models()] == ["x"]


def test_a_database_that_is_gone_is_not_begun_anew_beside_its_packets(
    store: CoordinatorStore, path: Path
) -> None:
    data = b"tensors"
    store.packet_files.write(data, hashlib.sha256(data).hexdigest())
    store.close()
    for found in files_of(path):
        if found.is_file():
            found.unlink()
    with pytest.raises(StoreError, match="it is gone. Restore it"):
        CoordinatorStore(path)
    assert not path.exists()
