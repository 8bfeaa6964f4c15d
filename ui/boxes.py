"""Boxes of a drawing of the graph: versions, models, equal siblings and chains, or owners."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import networkx as nx

from disinherit.documents.lineage.folding import fold
from disinherit.documents.standing import ShownEdge, ShownModel, Standing
from disinherit.documents.words import count
from disinherit.ui.lineage import STATUSES, SeenLineage, kind_of
from disinherit.ui.words import TASKS, WORST_FIRST

FOLDS: Mapping[str, str] = {
    "": "versions, siblings, chains",
    "versions": "versions",
    "owner": "owners",
    "none": "nothing",
}
"""What is folded into one box -> the words for it."""

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is drawn.

    Attributes:
        boxes: of one model or of many, as values of JSON.
        edges: (parent, child) -> kind and weight; `None` if it stands for many.
        left_out: number of edges that a longer way shows as well.
    """

    boxes: list[dict[str, Any]]
    edges: Mapping[Edge, tuple[str, float] | None]
    left_out: int = 0

    def forward(self) -> tuple[Edge, ...]:
        """Return the edges without those on circles: owners may pass models to and fro."""
        graph = nx.DiGraph(list(self.edges))
        part = {
            one: i for i, some in enumerate(nx.strongly_connected_components(graph)) for one in some
        }
        return tuple(edge for edge in self.edges if part[edge[0]] != part[edge[1]])


def find_boxes(
    lineage: SeenLineage,
    shown: set[str],
    by: str,
    focus: str = "",
    states: Mapping[str, str] = MappingProxyType({}),
    scores: Mapping[str, float] = MappingProxyType({}),
) -> Boxes:
    """Return the boxes of some versions.

    Args:
        lineage: the graph.
        shown: the versions.
        by: what is folded, of `FOLDS`.
        focus: a version that is not folded with others; `""` for none.
        states: version -> its state in a campaign.
        scores: version -> its inheritance score in a campaign, from 0 to 1.
    """
    if by == "none":
        versions = {one: [one] for one in lineage.records if one in shown}
        known = {
            (e.parent, e.child): (kind_of(e), e.weight)
            for one in versions
            for e in lineage.children.get(one, ())
            if e.child in versions
        }
        focused = focus
    else:
        folded = lineage.folded()
        models = dict.fromkeys(folded.of[one] for one in lineage.records if one in shown)
        versions = {one: list(folded.versions[one]) for one in models}
        known = {
            pair: (kind_of(e), e.weight)
            for pair, e in folded.edges.items()
            if pair[0] in versions and pair[1] in versions
        }
        focused = folded.of.get(focus, "")
    making = _Making(lineage, versions, states, scores)
    if by == "owner":
        return making.by_owner(known)
    if by == "" and nx.is_directed_acyclic_graph(nx.DiGraph(list(known))):
        return making.by_place(known, focused)
    return Boxes([making.one(model) for model in versions], known)


@dataclass(frozen=True, slots=True)
class _Making:
    lineage: SeenLineage
    versions: Mapping[str, Sequence[str]]
    states: Mapping[str, str]
    scores: Mapping[str, float]

    def by_place(self, edges: Mapping[Edge, tuple[str, float]], focus: str) -> Boxes:
        """Fold siblings and chains as reports do."""
        models = [
            ShownModel(one, self._owner(one), "root" if one == focus else "affected", Standing.LEFT)
            for one in self.versions
        ]
        folded = fold(models, [ShownEdge(*ends, *known) for ends, known in edges.items()])
        above = {child: parent for parent, child in folded.edges}
        boxes = []
        for key, box in folded.boxes.items():
            ids = [one.id for one in box.models]
            if box.kind == "model":
                boxes.append(self.one(key))
                continue
            start, depth = (above[key], 1) if box.kind == "siblings" else (key, len(ids))
            query = {"around": start, "depth": depth, "direction": "down", "fold": "versions"}
            boxes.append(self.many(key, ids, box.title, f"/graph?{urlencode(query)}"))
        return Boxes(boxes, {ends: edges.get(ends) for ends in folded.edges}, folded.dropped)

    def by_owner(self, edges: Iterable[Edge]) -> Boxes:
        """Put all models of an owner into one box."""
        owners: dict[str, list[str]] = {}
        for one in self.versions:
            owners.setdefault(self._owner(one), []).append(one)
        boxes = [
            self.many(
                name,
                models,
                f"{name}: {count(len(models), 'model')}",
                f"/graph?{urlencode({'owner': name, 'fold': 'versions'})}",
            )
            for name, models in sorted(owners.items())
        ]
        pairs = dict.fromkeys((self._owner(p), self._owner(c)) for p, c in edges)
        return Boxes(boxes, {pair: None for pair in pairs if pair[0] != pair[1]})

    def one(self, model: str) -> dict[str, Any]:
        """Return the box of one model, or of one version."""
        current = self._current(model)
        link = f"/model?{urlencode({'id': current})}"
        return {**self.many(model, [model], model, link), "current": current}

    def many(self, key: str, models: Sequence[str], title: str, link: str) -> dict[str, Any]:
        """Return a box of several models."""
        versions = [one for model in models for one in self.versions[model]]
        inside = set(versions)
        lineage = self.lineage
        owners = sorted({self._owner(one) for one in models})
        statuses = Counter(self._status(one) for one in models)
        states = Counter(state for one in models if (state := self._state(one)))
        return {
            "id": key,
            "title": title,
            "link": link,
            "models": list(models),
            "owner": owners[0] if len(owners) == 1 else count(len(owners), "owner"),
            "status": statuses.most_common(1)[0][0],
            "statuses": dict(statuses.most_common()),
            "state": min(states, key=_rank, default=None),
            "states": {name: states[name] for name in sorted(states, key=_rank)},
            "score": min(
                (self.scores[one] for one in versions if one in self.scores), default=None
            ),
            "versions": len(versions),
            "parents": len(
                {e.parent for one in versions for e in lineage.parents.get(one, ())} - inside
            ),
            "children": len(
                {e.child for one in versions for e in lineage.children.get(one, ())} - inside
            ),
        }

    def _current(self, model: str) -> str:
        versions = self.versions[model]
        known = self.lineage.records
        active = (one for one in reversed(versions) if STATUSES.get(known[one].status) == "active")
        return next(active, versions[-1])

    def _owner(self, model: str) -> str:
        return self.lineage.records[self._current(model)].owner

    def _status(self, model: str) -> str:
        return STATUSES.get(self.lineage.records[self._current(model)].status, "unknown")

    def _state(self, model: str) -> str | None:
        found = (self.states[one] for one in self.versions[model] if one in self.states)
        return next(found, None)


_ORDER = {
    name: place for place, name in enumerate(dict.fromkeys((*WORST_FIRST, *reversed(list(TASKS)))))
}


def _rank(state: str) -> tuple[int, str]:
    return _ORDER.get(state, len(_ORDER)), state
