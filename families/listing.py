"""Findings as people and programs read them: by the version that each is about, and each once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.families.evidence import FamilyFinding, Found, Kind, shortened


def about_versions(
    findings: Iterable[FamilyFinding], models: Mapping[str, Found], ids: Mapping[str, str]
) -> tuple[FamilyFinding, ...]:
    """Return findings sorted, with the ids of versions in the place of folders and files.

    What is about a file in the folder of a model is about that model, and names the file in its
    text; what is about no model keeps its path.

    Args:
        findings: the findings, each once; their models are ids, keys or paths.
        models: key -> model.
        ids: key -> id of its version.
    """
    known = {shortened(key): id for key, id in ids.items()}
    known |= {shortened(str(one.path)): ids[key] for key, one in models.items() if one.path}
    found = set()
    for one in findings:
        folder, _, file = one.model.rpartition("/")
        if one.model in known:
            found.add(replace(one, model=known[one.model]))
        elif folder in known:
            text = one.text if file in one.text else f"{file}: {one.text}"
            found.add(replace(one, model=known[folder], text=text))
        else:
            found.add(one)
    return tuple(sorted(found, key=lambda one: (one.kind.value, one.model, one.text)))


def twins(
    records: Mapping[str, ModelRecord],
    fresh: Collection[str],
    edges: Mapping[str, Sequence[Inheritance]],
) -> list[FamilyFinding]:
    """Return findings about new versions with the weights of others that no edge joins them to.

    Args:
        records: id -> record of all versions.
        fresh: ids of those that are new.
        edges: child -> its edges, by this import.
    """
    equal = nx.Graph()
    equal.add_nodes_from(id for id, record in records.items() if record.digest)
    equal.add_edges_from(
        (edge.parent, edge.child)
        for group in edges.values()
        for edge in group
        if records[edge.parent].digest == records[edge.child].digest != ""
    )
    by_digest: dict[str, list[list[str]]] = {}
    for part in nx.connected_components(equal):
        ordered = sorted(part, key=lambda id: (id in fresh, id))
        by_digest.setdefault(records[ordered[0]].digest, []).append(ordered)
    findings = []
    for parts in by_digest.values():
        first, *others = sorted(parts, key=lambda part: (part[0] in fresh, part[0]))
        for part in others:
            new = next((id for id in part if id in fresh), None)
            if new is not None:
                text = f"It has the weights of {first[0]!r}, and no source says why."
                findings.append(FamilyFinding(Kind.SAME_WEIGHTS, new, text))
    return findings
