"""Records of campaigns that never ran: a root, and models that inherit from it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.documents.campaign.members import CampaignRecords

WHEN = "2026-11-02T09:00:00+00:00"


def recognition(after: float = 0.0, before: float = 0.9) -> dict[str, Any]:
    """Figures of 50 held-out samples."""
    figures = {"measure": "accuracy", "before": before, "after": after, "floor": 0.0}
    return figures | {"margin": 0.06, "samples": 50, "source": "evaluation"}


def entry(model: str, state: str = "verified", **changes: Any) -> dict[str, Any]:
    """An affected model that has forgotten, with some changes."""
    done = state == "verified"
    retain = {"before": 0.9, "after": 0.9, "samples": 900}
    return {
        "model": model,
        "owner": f"owner-{sum(map(ord, model)) % 9}",
        "state": state,
        "reason": "",
        "successor": f"{model}~q" if done else None,
        "applied": {"forget": recognition(), "retain": retain} if done else None,
        "notified": WHEN if done else None,
        "told": WHEN,
        "acknowledged": WHEN if done else None,
        "done": WHEN if done else None,
        "destroy_due": None,
        "destroyed": None,
        "held_by": None,
        "hardly_known": False,
        **({"remedy": "suppressed"} if done else {}),
        **changes,
    }


def graph_of(
    parents: Mapping[str, tuple[str, ...]], recipes: Mapping[str, Recipe] | None = None
) -> InheritanceGraph:
    """A graph of models with their parents, ancestors first."""
    graph = InheritanceGraph()
    for age, (id, above) in enumerate(parents.items(), 1):
        record = ModelRecord(id, f"owner-{sum(map(ord, id)) % 9}", "a", ("cat", "dog"), "", age)
        recipe = (recipes or {}).get(id)
        edges = [
            Inheritance(
                one, id, InheritanceKind.INCREMENTAL, recipe=recipe, place=place if recipe else 0
            )
            for place, one in enumerate(above, 1)
        ]
        graph.add(record, edges)
    return graph


def records(
    models: list[dict[str, Any]],
    state: str = "complete",
    gaps: list[dict[str, Any]] | None = None,
    graph: InheritanceGraph | None = None,
    made: str = "2026-11-20T09:00:00+00:00",
) -> CampaignRecords:
    """Records of a request to forget a class at the first model, from which all others inherit."""
    first, *rest = (model["model"] for model in models)
    root = {"model": first, "classes": ["cat"], "samples": [], "sample_count": 0}
    request = {
        "id": "q",
        "state": state,
        "reason": "<b>letter 17</b>",
        "roots": [root],
        "client": None,
        "created": WHEN,
        "deadline": None,
        "approved_plan_sha256": None,
        "submitted_by": "olga",
        "approved": WHEN,
        "approved_by": "paul",
        "decisions": [{"time": WHEN, "kind": "approved", "actor": "paul", "sequence": 7}],
    }
    found = graph or graph_of({first: (), **dict.fromkeys(rest, (first,))})
    report = {
        "request": request,
        "request_sha256": "a" * 64,
        "graph": {"sha256": "b" * 64, "models": len(models), "edges": len(rest)},
        "times": {"received": WHEN, "ended": WHEN},
        "gaps": gaps or [],
        "audit": {"entries": 9, "head": "c" * 64, "log_sequence": 12, "log_head": "d" * 64},
        "models": models,
    }
    at = datetime.fromisoformat(made).astimezone(UTC)
    return CampaignRecords(report, found, ["e" * 64], "f" * 64, at, "0.1.0")
