"""Reduction of an inheritance graph to what a picture can show: boxes of one model or of many.

First untouched models are left out, then versions are folded into their model, equal siblings and
chains into one box each.  Edges that a longer way shows as well are left out where it is crowded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx as nx

from disinherit.documents.standing import ShownEdge, ShownModel

CROWDED = 12
"""Boxes above which a picture shows only what matters."""

MOST_BOXES = 150
"""Boxes above which models are drawn as strips, without lines."""

FOLD_FROM = 4
"""Least number of equal siblings, or of models in a chain, that are folded into one box."""

Edge = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the picture.

    Attributes:
        key: id of its first model.
        models: the models in it; of versions only the first and what became of it.
        kind: why they are together.
        title: what stands in the box.
    """

    key: str
    models: tuple[ShownModel, ...]
    kind: Literal["model", "siblings", "chain"]
    title: str


@dataclass(frozen=True, slots=True)
class Folded:
    """A graph that is folded.

    Attributes:
        boxes: key -> box, parents first.
        edges: (parent, child) -> the edge, where both ends are single models; else `None`.
        generations: keys by generation.
        untouched: number of untouched models that are left out.
        dropped: number of edges that a longer way shows as well.
        versions: number of versions that are folded into the model that they were made of.
    """

    boxes: Mapping[str, Box]
    edges: Mapping[Edge, ShownEdge | None]
    generations: Sequence[Sequence[str]]
    untouched: int
    dropped: int
    versions: int


def fold(
    models: Sequence[ShownModel], edges: Iterable[ShownEdge], *, whole: bool = False
) -> Folded:
    """Fold a graph.

    Args:
        models: all models, in any order.
        edges: who was derived from whom, without a circle; `unlearned` joins versions of a model.
        whole: whether untouched models are shown even where it is crowded.

    Example:
        >>> from disinherit.documents.standing import Standing
        >>> root = ShownModel("u0", "a", "root", Standing.FORGOT)
        >>> fan = [ShownModel(f"u{i}", "b", "affected", Standing.FORGOT) for i in range(1, 47)]
        >>> edges = [ShownEdge("u0", one.id, "federated", 1.0) for one in fan]
        >>> [box.title for box in fold([root, *fan], edges).boxes.values()]
        ['u0', '46 children of u0']
    """
    known = {one.id: one for one in models}
    edges = [edge for edge in edges if edge.parent in known and edge.child in known]
    first = _first_versions(known, edges)
    versions = sum(id != other for id, other in first.items())
    shown = {id for id in known if first[id] == id}
    matters = {first[one.id] for one in models if one.role != "untouched"}
    if matters and len(shown) > CROWDED and not whole:
        shown &= matters
    graph = nx.DiGraph()
    graph.add_nodes_from(id for id in known if id in shown)
    single: dict[Edge, ShownEdge] = {}
    for edge in edges:
        ends = (first[edge.parent], first[edge.child])
        if ends[0] != ends[1] and {*ends} <= shown:
            graph.add_edge(*ends)
            single[ends] = edge
    boxes = {id: Box(id, (known[id],), "model", id) for id in graph}
    _fold_siblings(graph, boxes)
    _fold_chains(graph, boxes)
    dropped = 0
    if CROWDED < len(boxes) <= MOST_BOXES:
        kept = set(nx.transitive_reduction(graph).edges)
        dropped = graph.number_of_edges() - len(kept)
        graph.remove_edges_from([edge for edge in list(graph.edges) if edge not in kept])
    place = {id: index for index, id in enumerate(known)}
    generations = [sorted(one, key=place.__getitem__) for one in nx.topological_generations(graph)]
    return Folded(
        boxes={key: boxes[key] for keys in generations for key in keys},
        edges={ends: single.get(ends) for ends in graph.edges},
        generations=generations,
        untouched=len({id for id in known if first[id] == id} - shown),
        dropped=dropped,
        versions=versions,
    )


def _first_versions(known: Mapping[str, ShownModel], edges: Iterable[ShownEdge]) -> dict[str, str]:
    """Return, for every version, the first one of the same model."""
    made_of = {edge.child: edge.parent for edge in edges if edge.kind == "unlearned"}
    first: dict[str, str] = {}
    for id in known:
        way = [id]
        while way[-1] in made_of and made_of[way[-1]] not in first:
            way.append(made_of[way[-1]])
        start = first[made_of[way[-1]]] if way[-1] in made_of else way[-1]
        first.update((one, start) for one in way)
    return first


def _fold_siblings(graph: "nx.DiGraph", boxes: dict[str, Box]) -> None:
    """Put childless models with the same parents into one box."""
    families: dict[tuple[str, ...], list[str]] = {}
    for id in list(graph):
        parents = tuple(sorted(graph.predecessors(id)))
        if parents and not graph.out_degree(id) and boxes[id].models[0].role != "root":
            families.setdefault(parents, []).append(id)
    for parents, ids in families.items():
        if len(ids) >= FOLD_FROM:
            of = parents[0] if len(parents) == 1 else f"{parents[0]} and {len(parents) - 1} more"
            _join(graph, boxes, ids, "siblings", f"{len(ids)} children of {of}")


def _fold_chains(graph: "nx.DiGraph", boxes: dict[str, Box]) -> None:
    """Put models that follow each other, one parent and one child each, into one box."""

    def follows(parent: str, child: str) -> bool:
        plain = boxes[child].kind == "model" and boxes[child].models[0].role != "root"
        return plain and graph.in_degree(child) == 1 and graph.out_degree(parent) == 1

    for id in list(nx.topological_sort(graph)):
        if id not in graph or boxes[id].kind != "model":
            continue
        chain = [id]
        while (below := list(graph.successors(chain[-1]))) and follows(chain[-1], below[0]):
            chain.append(below[0])
        if boxes[id].models[0].role == "root" or graph.in_degree(id) != 1:
            chain = chain[1:]  # where a chain begins, many things may meet
        if len(chain) >= FOLD_FROM:
            _join(graph, boxes, chain, "chain", f"{chain[0]} … {chain[-1]}, {len(chain)} models")


def _join(
    graph: "nx.DiGraph",
    boxes: dict[str, Box],
    ids: Sequence[str],
    kind: Literal["siblings", "chain"],
    title: str,
) -> None:
    """Replace models by one box with all of them, under the id of the first."""
    key, *rest = ids
    models = tuple(boxes[id].models[0] for id in ids)
    below = [child for child in graph.successors(ids[-1]) if child not in ids]
    graph.remove_edges_from([(key, child) for child in list(graph.successors(key))])
    graph.remove_nodes_from(rest)
    graph.add_edges_from((key, child) for child in below)
    for id in rest:
        del boxes[id]
    boxes[key] = Box(key, models, kind, title)
