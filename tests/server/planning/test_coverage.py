"""Coverage: complete, checked by brute force on random graphs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.common.errors import RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.wire.requests import Request
from disinherit.server.planning.coverage import Covered, cover
from disinherit.server.planning.plan import plan
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import Answered, Task, TaskState, cleansed
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.changes import update_all, update_answered

LABELS = ("cat", "dog")


def version(index: int) -> ModelRecord:
    return ModelRecord(f"m{index}", "anna", "aa", LABELS, f"{index:04x}", 10 * index)


def successor(of: ModelRecord) -> ModelRecord:
    return replace(of, id=f"{of.id}~q", digest=f"ff{of.digest}", created_us=of.created_us + 1)


def request() -> pb.UnlearningRequest:
    return Request(id="q", forget={"m1": ["cat"]}).to_proto()


def applied(record: ModelRecord) -> Task:
    result = pb.ModelResult(model_id=record.id, successor=record_to_proto(successor(record)))
    return Task(record.id, record.owner, TaskState.APPLIED, "", result)


def edges(parents: list[str], child: str) -> list[Inheritance]:
    kind = InheritanceKind.FEDERATED
    return [Inheritance(parent, child, kind, 1 / len(parents)) for parent in parents]


def fill(store: CoordinatorStore) -> None:
    """m1 -> m2 -> m3, m1 -> m4; unlearned in m1 and m2; m3 waits; m4 came late; m5 is apart."""
    for index, parents in ((1, []), (2, ["m1"]), (3, ["m2"]), (5, [])):
        store.add_model(version(index), edges(parents, f"m{index}"))
    store.submit(request(), [Task(f"m{index}", "anna") for index in (1, 2, 3)])
    for index in (1, 2):
        done = Answered(applied(version(index)), successor(version(index)), ())
        assert update_answered(store, "q", [done]) == {}
    update_all(store, "q", [Task("m3", "anna", TaskState.PENDING, "offline")])
    store.add_model(version(4), edges(["m1"], "m4"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(tmp_path / "coordinator.db")
    fill(store)
    yield store
    store.close()


def test_coverage_has_all_fields_of_a_version(store: CoordinatorStore) -> None:
    first, second, third, late = coverage_of(store, "q").models
    assert replace(first, updated_us=0) == Covered(
        "m1", "anna", TaskState.APPLIED, "", "m1~q", "0001", "ff0001", 0, 0
    )
    assert second.updated_us >= first.updated_us > 0
    assert (third.state, third.reason, third.successor) == (TaskState.PENDING, "offline", "")
    assert late == Covered(
        "m4",
        "anna",
        TaskState.PENDING,
        "joins the campaign with the next pass over it",
        "",
        "0004",
        "",
        0,
        0,
    )


def test_descendants_of_a_successor_are_not_affected(store: CoordinatorStore) -> None:
    store.add_model(version(6), edges(["m1~q"], "m6"))
    assert [one.model_id for one in coverage_of(store, "q").models] == ["m1", "m2", "m3", "m4"]


def test_pages_together_are_complete(store: CoordinatorStore) -> None:
    whole = coverage_of(store, "q")
    assert whole.next_page_token == ""
    for size in (1, 2, 3, 4):
        found: list[Covered] = []
        token = ""
        while True:
            page = coverage_of(store, "q", size, token)
            assert 0 < len(page.models) <= size
            found += page.models
            if not (token := page.next_page_token):
                break
        assert tuple(found) == whole.models


def test_a_version_that_joins_between_two_pages_moves_no_other(store: CoordinatorStore) -> None:
    first = coverage_of(store, "q", 2)
    store.add_model(replace(version(7), created_us=11), edges(["m1"], "m7"))
    rest = coverage_of(store, "q", 9, first.next_page_token)
    assert [one.model_id for one in rest.models] == ["m3", "m4"]


@pytest.mark.parametrize(("size", "token"), [(0, ""), (1001, ""), (-1, ""), (1, "nonsense")])
def test_an_invalid_page_is_refused(store: CoordinatorStore, size: int, token: str) -> None:
    with pytest.raises(RequestError, match="page"):
        coverage_of(store, "q", size, token)


def test_coverage_of_an_unknown_request_is_refused(store: CoordinatorStore) -> None:
    with pytest.raises(RequestError, match="'nothing'"):
        coverage_of(store, "nothing")


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[int, set[int]], set[int]]:
    """Child -> parents for up to nine versions, and those that were unlearned in."""
    size = draw(st.integers(1, 9))
    parents = {
        child: draw(st.sets(st.integers(1, child - 1), max_size=3)) if child > 1 else set[int]()
        for child in range(1, size + 1)
    }
    return parents, draw(st.sets(st.integers(1, size), max_size=4))


@settings(max_examples=60)
@given(histories(), st.data())
def test_coverage_equals_brute_force(
    history: tuple[dict[int, set[int]], set[int]], data: st.DataObject
) -> None:
    parents, unlearned = history
    graph = InheritanceGraph()
    affected: set[str] = {"m1"}
    tasks: dict[str, Task] = {}
    for child, ancestors in parents.items():
        # A parent is the version itself or, once it is there, its successor.
        clean = {
            parent for parent in ancestors if f"m{parent}" in tasks and data.draw(st.booleans())
        }
        names = [f"m{parent}~q" if parent in clean else f"m{parent}" for parent in ancestors]
        graph.add(version(child), edges(names, f"m{child}"))
        if affected.intersection(names):
            affected.add(f"m{child}")
        if f"m{child}" in affected and child in unlearned:
            tasks[f"m{child}"] = applied(version(child))
            edge = Inheritance(f"m{child}", f"m{child}~q", InheritanceKind.UNLEARNED)
            graph.add(successor(version(child)), [edge])

    planned = plan(graph, request(), cleansed(tasks.values()), tasked=tasks)
    covered = cover(graph, planned, tasks, {})

    assert {one.model_id for one in covered} == affected
    assert len(covered) == len(affected)
    for one in covered:
        assert (one.state is TaskState.APPLIED) == (one.model_id in tasks)
        assert one.state is TaskState.APPLIED or one.reason
    position = {one.model_id: place for place, one in enumerate(covered)}
    for edge in graph.edges():
        if edge.parent in position and edge.child in position:
            assert position[edge.parent] < position[edge.child]
