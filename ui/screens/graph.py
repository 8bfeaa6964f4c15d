"""The inheritance graph: searched, focused, folded, and coloured; drawn and as a list."""

from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.common.errors import InputError
from disinherit.ui.boxes import FOLDS, find_boxes
from disinherit.ui.lineage import SeenLineage, read_lineage
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
    by = _fold(page)
    found = find_boxes(lineage, shown, by, states, page.text("around"))
    boxes = found.boxes
    text = page.text("q").lower()
    listed = [one for one in boxes if text in _searched(one)]
    start = page.number("start", 0)
    drawing = Drawing({}, {})
    if len(boxes) <= MOST_BOXES:
        drawing = place(tuple(one["id"] for one in boxes), found.forward())
    for one in boxes:
        one["x"], one["y"] = drawing.places.get(one["id"], (None, None))
    return {
        "boxes": boxes,
        "edges": [
            {
                "parent": ends[0],
                "child": ends[1],
                "kind": known[0] if known else None,
                "weight": known[1] if known else None,
                "way": drawing.ways.get(ends, ()),
            }
            for ends, known in found.edges.items()
        ],
        "left_out": found.left_out,
        "versions_known": len(lineage.records),
        "drawn": len(boxes) <= MOST_BOXES,
        "list": listed[start : start + LIST_PAGE],
        "list_total": len(listed),
        "start": start,
        "page": LIST_PAGE,
        "q": page.text("q"),
        "around": page.text("around"),
        "depth": page.number("depth", 2),
        "depths": _DEPTHS,
        "direction": page.text("direction"),
        "owner": page.text("owner"),
        "owners": sorted({one.owner for one in lineage.records.values()}),
        "campaign": campaign,
        "fold": by,
        "folds": dict(FOLDS),
        "colour": page.text("colour") or ("campaign" if campaign else "status"),
        "colours": _COLOURS if campaign else _COLOURS[:2],
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that shows the graph."""
    return ("graph", "show")


def _chosen(page: Page, lineage: SeenLineage, states: Mapping[str, str]) -> set[str]:
    """Return the versions to show."""
    shown = set(lineage.records)
    if page.text("campaign"):
        shown &= set(states)
    if around := page.text("around"):
        depth = page.number("depth", 2)
        shown &= lineage.around(around, depth, page.text("direction"))
    if owner := page.text("owner"):
        shown = {one for one in shown if lineage.records[one].owner == owner}
    return shown


def _fold(page: Page) -> str:
    by = page.text("fold")
    if by not in FOLDS:
        expected = ", ".join(one for one in FOLDS if one)
        raise InputError(f"Expected {expected} or nothing as fold, but got {by[:50]!r}.")
    return by


def _searched(box: Mapping[str, Any]) -> str:
    """Return the text of a box in which a search looks."""
    return " ".join((box["id"], box["title"], box["owner"], *box["models"])).lower()


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
