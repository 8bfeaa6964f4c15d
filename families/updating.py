"""What an import changes of a graph: edges that it takes, and the times of versions.

Edges that were observed or registered stay as they are, and the difference is listed.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

import networkx as nx

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.families.evidence import OF_FOLDERS, FamilyFinding, Kind
from disinherit.families.naming import stem

_END = 2**62
_GAP_US = 1000
"""Microseconds between new versions, so that a later import may put others between them."""


def updates(
    graph: InheritanceGraph,
    edges: Mapping[str, Sequence[Inheritance]],
    plain: Set[str],
    findings: list[FamilyFinding],
) -> dict[str, tuple[Inheritance, ...]]:
    """Return the edges that are new or change: those that were observed or registered do not."""
    taken = {}
    for child, new in edges.items():
        old = graph.parents(child) if child in graph else ()
        ours, theirs = {edge.parent for edge in new}, {edge.parent for edge in old}
        if sorted(old, key=_parent) == sorted(new, key=_parent):
            continue
        if all(edge.source for edge in old) and not _moved(ours, theirs, plain):
            taken[child] = tuple(new)
        elif ours != theirs:
            was, now = ", ".join(sorted(theirs)), ", ".join(sorted(ours))
            text = f"The graph has it from {was}, the sources from {now}: it stays as recorded."
            findings.append(FamilyFinding(Kind.RECORDED, child, text))
    return taken


def unsaid(
    graph: InheritanceGraph, ids: Iterable[str], said: Mapping[str, Set[str]]
) -> list[FamilyFinding]:
    """Return findings about edges by folders of versions that were read and have no parent now.

    They stay: a card that is lost or damaged is no reason to reach fewer models.

    Args:
        graph: the graph before.
        ids: versions whose folders were read, and gave no edge.
        said: id -> names of parents that the files in its folder say.
    """
    findings = []
    for edge in (edge for id in ids if id in graph for edge in graph.parents(id)):
        if edge.source in OF_FOLDERS:
            names = ", ".join(map(repr, sorted(said.get(edge.child, ()))))
            now = f"names {names} now, which gave no edge" if names else "names no parent now"
            text = (
                f"The graph has it from {edge.parent} by its {edge.source}, and its folder {now}: "
                "it stays as recorded."
            )
            findings.append(FamilyFinding(Kind.RECORDED, edge.child, text))
    return findings


def _moved(ours: set[str], theirs: set[str], plain: Set[str]) -> bool:
    """Whether parents differ only in their version: their names have other weights by now."""
    return ours != theirs and {stem(one, plain) for one in ours} == {
        stem(one, plain) for one in theirs
    }


def _parent(edge: Inheritance) -> str:
    return edge.parent


def merged(
    graph: InheritanceGraph,
    fresh: Mapping[str, ModelRecord],
    taken: Mapping[str, Sequence[Inheritance]],
    now_us: int,
    fixed: Set[str],
    findings: list[FamilyFinding],
) -> tuple[InheritanceGraph, tuple[str, ...]]:
    """Return the graph with new records and edges, and the versions that changed."""
    records = {record.id: record for record in graph.models()} | dict(fresh)
    edges = {id: graph.parents(id) for id in records if id in graph} | {
        child: tuple(group) for child, group in taken.items()
    }
    times = _times(graph, edges, set(fresh), fixed, now_us)
    changed = set(fresh) | set(taken) | {id for id in times if id in graph}
    records |= {id: replace(records[id], created_us=time) for id, time in times.items()}
    for child in sorted(taken):
        late = [e for e in edges[child] if _age(records, e.parent) >= _age(records, child)]
        if late:
            text = f"{', '.join(e.parent for e in late)} was recorded later than it: no edge."
            findings.append(FamilyFinding(Kind.ORDER, child, text))
            edges[child] = graph.parents(child) if child in graph else ()
            changed -= set() if child in fresh else {child}
    merged = InheritanceGraph(
        records.values(), (edge for group in edges.values() for edge in group)
    )
    return merged, tuple(record.id for record in merged.models() if record.id in changed)


def _age(records: Mapping[str, ModelRecord], id: str) -> int:
    return records[id].created_us


def _times(
    graph: InheritanceGraph,
    edges: Mapping[str, Sequence[Inheritance]],
    fresh: Set[str],
    fixed: Set[str],
    now_us: int,
) -> dict[str, int]:
    """Return times of new versions, after their parents and before their known children.

    Known versions keep theirs if they can: one that is older than a new parent becomes younger,
    unless its time is `fixed`.
    """
    order = nx.DiGraph()
    order.add_nodes_from(sorted(fresh))
    order.add_edges_from((edge.parent, edge.child) for group in edges.values() for edge in group)
    line = list(nx.lexicographical_topological_sort(order))
    known = {record.id: record.created_us for record in graph.models()}
    latest: dict[str, int] = {}
    for id in reversed(line):
        before = min((latest[one] - 1 for one in order.successors(id)), default=_END)
        latest[id] = known.get(id, before)
    times = dict(known)
    start, place = max([now_us, *known.values()]), 0
    for id in line:
        after = max((times[one] + 1 for one in order.predecessors(id)), default=0)
        if id not in known:
            place += 1
            times[id] = max(0, min(latest[id], start + place * _GAP_US))
        elif times[id] < after and id not in fixed:
            times[id] = after + _GAP_US
    return {id: time for id, time in times.items() if time != known.get(id)}
