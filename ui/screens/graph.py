"""The inheritance graph: searched, focused, folded, and coloured; drawn and as a list."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from disinherit.common.errors import InputError
from disinherit.ui.lineage import STATUSES, Lineage, kind_of, read_lineage
from disinherit.ui.placing import Drawing, place
from disinherit.ui.screens.screen import Page
from disinherit.v1 import coordinator_pb2 as pb

MOST_BOXES = 6000
"""Boxes that are drawn at once; a list and a focus show the rest."""

LIST_PAGE = 100
_COLOURS = ("status", "owner", "campaign")
_DEPTHS = (1, 2, 3, 5, 10)


def load(page: Page) -> Mapping[str, Any]:
    """Return boxes with places, edges between them, and a page of the list."""
    lineage = read_lineage(page.visitor)
    campaign = page.text("campaign")
    states = _states(page, campaign) if campaign else {}
    shown = _chosen(page, lineage, states)
    boxes, edges = _drawn(lineage, shown, page.text("versions") == "all", states)
    text = page.text("q").lower()
    listed = [one for one in boxes if text in f"{one['id']} {one['owner']}".lower()]
    start = _number(page, "start", 0)
    drawing = Drawing({}, {})
    if len(boxes) <= MOST_BOXES:
        drawing = place(tuple(one["id"] for one in boxes), tuple((e[0], e[1]) for e in edges))
    for one in boxes:
        one["x"], one["y"] = drawing.places.get(one["id"], (None, None))
    return {
        "boxes": boxes,
        "edges": [
            {"parent": p, "child": c, "kind": k, "weight": w, "way": drawing.ways.get((p, c), ())}
            for p, c, k, w in edges
        ],
        "versions_known": len(lineage.records),
        "drawn": len(boxes) <= MOST_BOXES,
        "list": listed[start : start + LIST_PAGE],
        "list_total": len(listed),
        "start": start,
        "page": LIST_PAGE,
        "q": page.text("q"),
        "around": page.text("around"),
        "depth": _number(page, "depth", 2),
        "depths": _DEPTHS,
        "direction": page.text("direction"),
        "owner": page.text("owner"),
        "owners": sorted({one.owner for one in lineage.records.values()}),
        "campaign": campaign,
        "versions": page.text("versions"),
        "colour": page.text("colour") or ("campaign" if campaign else "status"),
        "colours": _COLOURS if campaign else _COLOURS[:2],
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that shows the graph."""
    return ("graph", "show")


def _chosen(page: Page, lineage: Lineage, states: Mapping[str, str]) -> set[str]:
    """Return the versions to show."""
    shown = set(lineage.records)
    if page.text("campaign"):
        shown &= set(states)
    if around := page.text("around"):
        depth = _number(page, "depth", 2)
        shown &= lineage.around(around, depth, page.text("direction"))
    if owner := page.text("owner"):
        shown = {one for one in shown if lineage.records[one].owner == owner}
    return shown


def _number(page: Page, name: str, default: int) -> int:
    text = page.text(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise InputError(f"Expected a number as {name}, but got {text[:50]!r}.")
    return int(text)


def _states(page: Page, campaign: str) -> dict[str, str]:
    """Return version -> its state in a request; also of the successors that it made."""
    request = pb.GetCoverageRequest(id=campaign)
    states = {}
    for part in page.visitor.pages(lambda stub: stub.GetCoverage, request):
        for one in part.models:
            states[one.model_id] = one.state
            if one.successor_id:
                states[one.successor_id] = one.state
    return states


Edges = list[tuple[str, str, str, float]]


def _drawn(
    lineage: Lineage, shown: set[str], all_versions: bool, states: Mapping[str, str]
) -> tuple[list[dict[str, Any]], Edges]:
    if all_versions:
        boxes = [_box(lineage, one, [one], states.get) for one in lineage.records if one in shown]
        edges = [
            (e.parent, e.child, kind_of(e), e.weight)
            for one in boxes
            for e in lineage.children.get(one["id"], ())
            if e.child in shown
        ]
        return boxes, edges
    folded = lineage.folded()
    models = dict.fromkeys(folded.of[one] for one in lineage.records if one in shown)
    boxes = [_box(lineage, one, folded.versions[one], states.get) for one in models]
    edges = [
        (parent, child, kind_of(e), e.weight)
        for (parent, child), e in folded.edges.items()
        if parent in models and child in models
    ]
    return boxes, edges


def _box(
    lineage: Lineage,
    model: str,
    versions: Sequence[str],
    state_of: Callable[[str], str | None],
) -> dict[str, Any]:
    current = next(
        (
            one
            for one in reversed(versions)
            if STATUSES.get(lineage.records[one].status) == "active"
        ),
        versions[-1],
    )
    record = lineage.records[current]
    parents = {e.parent for one in versions for e in lineage.parents.get(one, ())}
    children = {e.child for one in versions for e in lineage.children.get(one, ())}
    return {
        "id": model,
        "current": current,
        "owner": record.owner,
        "status": STATUSES.get(record.status, "unknown"),
        "state": next((state for one in versions if (state := state_of(one))), None),
        "versions": len(versions),
        "parents": len(parents - set(versions)),
        "children": len(children - set(versions)),
    }
