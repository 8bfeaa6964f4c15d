"""The count of changes of a campaign's tasks: whoever writes a task's row counts it."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disinherit.common.graph.records import ModelRecord
from disinherit.server import store as room
from disinherit.server.states import Task, TaskState
from disinherit.server.store import request_rows
from disinherit.server.store.campaigns import Known, find_driven
from disinherit.server.store.request_rows import (
    find_tasks,
    put_destruction,
    put_tasks,
    schedule_destruction,
)
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb

WRITES = ("insert", "update", "delete")
PENDING = {name: Task(name, "anna") for name in "ab"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    """A store with a request whose campaign has two tasks."""
    opened = CoordinatorStore(tmp_path / "c.db")
    for number, name in enumerate(PENDING):
        opened.add_model(ModelRecord(name, "anna", "aa", ("cat", "dog"), "", number + 1))
    opened.submit(pb.UnlearningRequest(id="q"), list(PENDING.values()))
    yield opened
    opened.close()


def changes(store: CoordinatorStore) -> int:
    with store.reading() as db:
        return find_driven(db, "q").changes


def functions_that_write() -> dict[str, set[str]]:
    """Module of the server -> its functions, or names of its statements, that write task rows."""
    found: dict[str, set[str]] = {}
    for file in Path(room.__path__[0]).parent.rglob("*.py"):
        if "migrations" in file.parts:
            continue
        for outer in ast.parse(file.read_text()).body:
            for node in ast.walk(outer):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in WRITES
                    and ast.unparse(node.args[0]) == "TASKS"
                ):
                    name = outer.name if isinstance(outer, ast.FunctionDef) else ""
                    found.setdefault(file.stem, set()).add(name)
    return found


def test_only_what_counts_its_changes_writes_rows_of_tasks() -> None:
    assert functions_that_write() == {
        "request_rows": {"", "put_destruction", "schedule_destruction"},
    }
    source = Path(request_rows.__file__).read_text()
    made = {"_INSERT_TASKS", "_CHANGE_TASKS", "_UPDATE_TASKS", "_UPDATE_ALIKE", "TASKS"}
    for outer in ast.parse(source).body:
        if isinstance(outer, ast.FunctionDef):
            names = {node.id for node in ast.walk(outer) if isinstance(node, ast.Name)}
            if names & (made - {"TASKS"}) or (names & made and names & {*WRITES}):
                assert "_count_change" in names, outer.name


@pytest.mark.parametrize(
    "write",
    [
        lambda db: put_tasks(db, "q", [Task("a", "anna", TaskState.FAILED, "no")], PENDING),
        lambda db: put_tasks(
            db, "q", [Task("b", "anna", TaskState.APPLIED, result=pb.ModelResult(alpha=1))], PENDING
        ),
        lambda db: put_destruction(db, "q", ["a"], destroy_us=5),
        lambda db: schedule_destruction(db, "q", 5),
    ],
)
def test_every_change_of_a_task_is_counted(
    store: CoordinatorStore, write: Callable[..., None]
) -> None:
    before = changes(store)
    with store.writing() as db:
        write(db)
    assert changes(store) == before + 1


def test_tasks_are_read_again_if_somebody_changed_one(store: CoordinatorStore) -> None:
    with store.reading() as db:
        driven = find_driven(db, "q", None)
    known = Known(driven.tasks, driven.changes)
    with store.reading() as db:
        assert find_driven(db, "q", ["a"], known).tasks is driven.tasks
    with store.writing() as db:
        put_tasks(db, "q", [Task("a", "anna", TaskState.FAILED, "no")], PENDING)
    with store.reading() as db:
        assert find_driven(db, "q", ["a"], known).tasks == find_tasks(db, "q", ["a"])
        assert find_driven(db, "q", None, known).tasks["a"].state is TaskState.FAILED
        assert find_driven(db, "q", (), known).tasks == {}
