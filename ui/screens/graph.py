"""The inheritance graph: searched, focused, folded, and coloured; drawn and as a list."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from disinherit.common.errors import InputError
from disinherit.ui.boxes import FOLDS, find_boxes
from disinherit.ui.lineage import SeenLineage, read_lineage
from disinherit.ui.placing import Drawing, place
from disinherit.ui.screens.campaigns import read_campaigns
from disinherit.ui.screens.screen import Page
from disinherit.v1 import coordinator_pb2 as pb

MOST_BOXES = 6000
"""Boxes that are drawn at once; a list and a focus show the rest."""

LIST_PAGE = 100
_COLOURS = {
    "status": "status",
    "owner": "owner",
    "campaign": "state in the campaign",
    "score": "inheritance score",
}
_OF_CAMPAIGN = ("campaign", "score")
_LISTED_CAMPAIGNS = 50
_DEPTHS = (1, 2, 3, 5, 10)


def load(page: Page) -> Mapping[str, Any]:
    """Return boxes with places, edges between them, and a page of the list."""
    lineage = read_lineage(page.visitor)
    campaign = page.text("campaign")
    colour = _colour(page, campaign)
    states, scores = _states(page, campaign, scored=colour == "score") if campaign else ({}, {})
    shown = _chosen(page, lineage, states)
    by = _fold(page)
    found = find_boxes(lineage, shown, by, page.text("around"), states, scores)
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
        "campaigns": _campaigns(page, campaign),
        "fold": by,
        "folds": dict(FOLDS),
        "colour": colour,
        "colours": {
            name: words for name, words in _COLOURS.items() if campaign or name not in _OF_CAMPAIGN
        },
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


def _colour(page: Page, campaign: str) -> str:
    """Return what colours mean; what only a campaign has is not shown without one."""
    colour = page.text("colour")
    if colour and colour not in _COLOURS:
        expected = ", ".join(_COLOURS)
        raise InputError(f"Expected {expected} or nothing as colour, but got {colour[:50]!r}.")
    if campaign:
        return colour or "campaign"
    return "status" if colour in _OF_CAMPAIGN else colour or "status"


def _campaigns(page: Page, campaign: str) -> list[str]:
    """Return the ids of the latest requests, and of the chosen one."""
    latest = [one["id"] for one in read_campaigns(page)[:_LISTED_CAMPAIGNS]]
    return [*latest, *({campaign} - {"", *latest})]


def _fold(page: Page) -> str:
    by = page.text("fold")
    if by not in FOLDS:
        expected = ", ".join(one for one in FOLDS if one)
        raise InputError(f"Expected {expected} or nothing as fold, but got {by[:50]!r}.")
    return by


def _searched(box: Mapping[str, Any]) -> str:
    """Return the text of a box in which a search looks."""
    return " ".join((box["id"], box["title"], box["owner"], *box["models"])).lower()


def _states(page: Page, campaign: str, *, scored: bool) -> tuple[dict[str, str], dict[str, float]]:
    """Return version -> its state in a request, and version -> its inheritance score.

    Successors that the request made are among them.
    """
    states, scores = {}, {}
    for one, score in _scored(page, campaign) if scored else _covered(page, campaign):
        for version in filter(None, (one.model_id, one.successor_id)):
            states[version] = one.state
            if score is not None:
                scores[version] = score
    return states, scores


def _covered(page: Page, campaign: str) -> Iterator[tuple[pb.ModelCoverage, None]]:
    request = pb.GetCoverageRequest(id=campaign)
    for part in page.visitor.pages(lambda stub: stub.GetCoverage, request):
        yield from ((one, None) for one in part.models)


def _scored(page: Page, campaign: str) -> Iterator[tuple[pb.ModelCoverage, float | None]]:
    """Yield the versions with the score that their owners found; `None` where they have none."""
    request = pb.GetReportRequest(id=campaign)
    for part in page.visitor.pages(lambda stub: stub.GetReport, request):
        for one in part.models:
            known = one.HasField("result") and one.result.HasField("inheritance")
            yield one.coverage, one.result.inheritance if known else None
