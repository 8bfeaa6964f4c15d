"""Boxes of the dashboard's graph: what is folded, and what is never lost by it."""

from collections.abc import Sequence

import pytest

from disinherit.ui.boxes import FOLDS, find_boxes
from disinherit.ui.lineage import SeenLineage
from disinherit.ui.placing import place
from disinherit.v1 import graph_pb2

TRANSFER = graph_pb2.INHERITANCE_KIND_TRANSFER
UNLEARNED = graph_pb2.INHERITANCE_KIND_UNLEARNED


def make_lineage(edges: Sequence[tuple[str, str]], owners: int = 3) -> SeenLineage:
    """A graph in which `a~1` is what unlearning made of `a`; owners are dealt out by turns."""
    names = list(dict.fromkeys(name for pair in edges for name in pair))
    parents: dict[str, list[graph_pb2.Inheritance]] = {}
    children: dict[str, list[graph_pb2.Inheritance]] = {}
    for parent, child in edges:
        kind = UNLEARNED if child.partition("~")[0] == parent else TRANSFER
        edge = graph_pb2.Inheritance(parent=parent, child=child, kind=kind, weight=1.0)
        parents.setdefault(child, []).append(edge)
        children.setdefault(parent, []).append(edge)
    records = {
        name: graph_pb2.ModelRecord(
            id=name, owner=f"owner-{i % owners}", status=graph_pb2.MODEL_STATUS_ACTIVE
        )
        for i, name in enumerate(names)
    }
    return SeenLineage(records, parents, children)


FAN = [("r", f"s{i}") for i in range(6)]
CHAIN = [("r", "c0"), *((f"c{i}", f"c{i + 1}") for i in range(5)), ("c5", "x"), ("c5", "y")]
GRAPH = make_lineage([*FAN, *CHAIN, ("x", "x~1")])


def keys(by: str, **changes: str) -> list[str]:
    found = find_boxes(GRAPH, set(GRAPH.records), by, changes.get("focus", ""))
    return [one["title"] for one in found.boxes]


def test_siblings_chains_and_versions_are_folded_unless_asked_otherwise() -> None:
    assert sorted(keys("")) == ["6 children of r", "c0 … c5, 6 models", "r", "x", "y"]
    assert len(keys("versions")) == len(GRAPH.records) - 1
    assert keys("none") == list(GRAPH.records)
    assert keys("owner") == ["owner-0: 6 models", "owner-1: 4 models", "owner-2: 5 models"]


@pytest.mark.parametrize("by", FOLDS)
def test_no_version_and_no_box_is_lost(by: str) -> None:
    found = find_boxes(GRAPH, set(GRAPH.records), by)
    assert sum(one["versions"] for one in found.boxes) == len(GRAPH.records)
    drawing = place(tuple(one["id"] for one in found.boxes), found.forward())
    assert set(drawing.places) == {one["id"] for one in found.boxes}


def test_a_model_that_is_looked_around_stays_a_box_of_its_own() -> None:
    assert "s2" in keys("", focus="s2")
    assert "5 children of r" in keys("", focus="s2")
    assert "x" in keys("", focus="x~1")


def test_a_box_of_many_says_the_worst_and_counts_all() -> None:
    states = {"s0": "verified", "s1": "verified", "s2": "pending", "s3": "failed"}
    scores = {"s0": 0.9, "s2": 0.4, "x~1": 0.7}
    found = find_boxes(GRAPH, {*states, "r", "x"}, "", states=states, scores=scores)
    (fan,) = (one for one in found.boxes if len(one["models"]) > 1)
    scored = {one["id"]: one["score"] for one in found.boxes}
    assert scored == {"r": None, fan["id"]: 0.4, "x": 0.7}
    assert fan["state"] == "failed"
    assert fan["states"] == {"failed": 1, "pending": 1, "verified": 2}
    assert fan["link"] == "/graph?around=r&depth=1&direction=down&fold=versions"


def test_models_that_owners_pass_to_and_fro_are_drawn() -> None:
    lineage = make_lineage([("a", "b"), ("b", "c"), ("c", "d")], owners=2)
    found = find_boxes(lineage, set(lineage.records), "owner")
    assert set(found.edges) == {("owner-0", "owner-1"), ("owner-1", "owner-0")}
    assert found.forward() == ()
    assert len(place(("owner-0", "owner-1"), found.forward()).places) == 2
    many = place(tuple(f"owner-{number}" for number in range(97)), ()).places.values()
    wide, high = ({one[axis] for one in many} for axis in (0, 1))
    assert max(wide) - min(wide) > max(high) - min(high)  # and no thread


def test_a_circle_between_versions_is_drawn_unfolded() -> None:
    lineage = make_lineage([("a", "b"), ("a", "a~1"), ("b", "b~1"), ("b~1", "a~1")])
    found = find_boxes(lineage, set(lineage.records), "")
    assert [one["id"] for one in found.boxes] == ["a", "b"]
    assert found.forward() == ()
