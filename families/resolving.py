"""Evidence weighed: the edges that sources support, and what is left open.

For each child the most trusted source that names a known parent is taken; a hint, only where no
other source names a parent.  Sources that disagree, names that mean nothing or several models, and
cycles are listed: no edge is made up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import networkx as nx

from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.families.edge_lists import UNDECLARED
from disinherit.families.evidence import Claim, Evidence, FamilyFinding, Kind, Relation, Source
from disinherit.families.merges import LEAST_SHARE
from disinherit.families.naming import Names

_SEVERAL = (Relation.FINETUNE, Relation.ADAPTER, Relation.QUANTIZED, Relation.UNKNOWN)


@dataclass(frozen=True, slots=True)
class NamedParent:
    """A parent that a claim names.

    Attributes:
        id: its version, which may be the child itself; `""` if it is not known.
        claim: the claim.
    """

    id: str
    claim: Claim

    def is_parent_of(self, child: str) -> bool:
        """Whether it is a version that is known, and not the child."""
        return self.id not in ("", child)


def resolve(
    evidence: Evidence,
    ids: Mapping[str, str],
    names: Names,
    records: Mapping[str, ModelRecord],
    present: Iterable[tuple[str, str]],
    at_least: float,
) -> tuple[dict[str, list[Inheritance]], list[FamilyFinding]]:
    """Return the edges to each child, and findings.

    Args:
        evidence: what the sources say.
        ids: key -> id of the version.
        names: meaning of names.
        records: id -> record of all versions, new and known.
        present: parent and child of the edges that the graph has.
        at_least: confidence below which an edge is listed and not taken.

    Returns:
        Child -> its edges, in the order of the source; and findings.
    """
    findings: list[FamilyFinding] = []
    adapters = {ids[one.key] for one in evidence.models.values() if one.adapter}
    folds = {ids[one.key]: one.fold for one in evidence.models.values() if one.fold}
    chosen: dict[str, list[NamedParent]] = {}
    for child, claims in _by_child(evidence, ids):
        doubted = [one for one in claims if _confidence(one) < at_least]
        for one in doubted:
            text = (
                f"The {one.source.title} names {one.parent!r}, at {_confidence(one):g}: not taken."
            )
            findings.append(FamilyFinding(Kind.DOUBTED, child, text))
        rest = [one for one in claims if _confidence(one) >= at_least]
        chosen[child] = _choose(child, rest, names, findings)
    _break_cycles(chosen, set(present), findings)
    edges = {}
    for child, parents in chosen.items():
        if any(one.is_parent_of(child) for one in parents):
            bases = {one.id: _bases(one.id, chosen) for one in parents if one.id in adapters}
            edges[child] = _edges(child, parents, bases, folds, records, findings)
    return edges, findings


def _by_child(evidence: Evidence, ids: Mapping[str, str]) -> list[tuple[str, list[Claim]]]:
    """Return the claims about each version: of its current revision, if it has several."""
    current = {ids[one.key] for one in evidence.models.values() if one.current}
    found: dict[str, list[Claim]] = {}
    for claim in evidence.claims:
        child = ids[claim.child]
        if evidence.models[claim.child].current or child not in current:
            found.setdefault(child, []).append(claim)
    return sorted(found.items())


def _choose(
    child: str, claims: Sequence[Claim], names: Names, findings: list[FamilyFinding]
) -> list[NamedParent]:
    """Return the parents by the most trusted source that names one that is known."""
    taken: list[NamedParent] = []
    unknown: list[NamedParent] = []
    by_trust = sorted(claims, key=lambda claim: claim.source.rank)
    for source, group in groupby(by_trust, key=lambda claim: claim.source):
        named, notes = _meant(child, list(group), names)
        parents = [one for one in named if one.id != child]
        if taken or not parents:
            findings += notes if not parents else []
            if parents and not _agree(parents, taken):
                findings.append(_conflict(child, taken, parents, f"{_title(taken)} is taken"))
            continue
        # A name that is unknown as a more trusted source has it, as with a revision, stays so.
        others = [one for one in parents if not _agree([one], unknown)]
        if any(one.id for one in others):
            hint = bool(unknown) and source is Source.CONFIG
            if unknown:
                what = "no edge, as that is a hint" if hint else f"the {source.title} is taken"
                findings.append(_conflict(child, unknown, others, what))
            if not hint:
                open_ = [one for one in parents if one not in others]
                taken = [replace(one, id="") if one in open_ else one for one in named]
        findings += notes
        unknown += parents
    return taken


def _meant(
    child: str, claims: Sequence[Claim], names: Names
) -> tuple[list[NamedParent], list[FamilyFinding]]:
    """Return what each claim of one source means: versions, each once, and what is not known."""
    parents: dict[str, NamedParent] = {}
    notes = []
    twice = []
    for claim in claims:
        meaning = names.meaning(claim)
        if meaning.id == child:
            text = f"The {claim.source.title} names {claim.parent!r}, which is the model itself."
            notes.append(FamilyFinding(Kind.SELF, child, text))
        elif meaning.finding is not None:
            kind, text = meaning.finding
            if claim.source is Source.EDGE_LIST and kind is Kind.UNKNOWN_PARENT:
                text = f"{text} {UNDECLARED}"
            notes.append(FamilyFinding(kind, child, f"The {claim.source.title}: {text}"))
        key = meaning.id or f" {claim.parent}"
        if key in parents:
            twice.append(claim.parent)
            claim = replace(claim, share=_sum(parents[key].claim.share, claim.share))
        parents[key] = NamedParent(meaning.id, claim)
    if twice and any(one.claim.share is not None for one in parents.values()):
        text = (
            f"The {claims[0].source.title} names one version twice, as {', '.join(twice)}: its "
            "shares are added, and the model is not computed again."
        )
        notes.append(FamilyFinding(Kind.CONFLICT, child, text))
    if twice:  # a recipe has a place for each parent that was named
        parents = {
            key: replace(one, claim=replace(one.claim, recipe=None)) for key, one in parents.items()
        }
    return list(parents.values()), notes


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else min(1.0, one + other)


def _agree(parents: Sequence[NamedParent], taken: Sequence[NamedParent]) -> bool:
    """Whether a less trusted source names nothing else, by the version or by the name."""
    ids = {one.id for one in taken if one.id}
    named = {one.claim.parent for one in taken}
    return all(one.id in ids or one.claim.parent in named for one in parents)


def _conflict(
    child: str, first: Sequence[NamedParent], second: Sequence[NamedParent], result: str
) -> FamilyFinding:
    ours = ", ".join(repr(one.claim.parent) for one in first)
    theirs = ", ".join(repr(one.claim.parent) for one in second)
    text = f"{_title(first).capitalize()} names {ours}, {_title(second)} {theirs}: {result}."
    return FamilyFinding(Kind.CONFLICT, child, text)


def _title(parents: Sequence[NamedParent]) -> str:
    return f"the {parents[0].claim.source.title}"


def _break_cycles(
    chosen: dict[str, list[NamedParent]],
    present: set[tuple[str, str]],
    findings: list[FamilyFinding],
) -> None:
    """Take back every new edge that is part of a cycle, since no one of them is the wrong one."""
    graph = nx.DiGraph(present)
    new = {
        (one.id, child)
        for child, parents in chosen.items()
        for one in parents
        if one.is_parent_of(child)
    }
    graph.add_edges_from(new)
    for circle in nx.strongly_connected_components(graph):
        if len(circle) == 1:
            continue
        members = ", ".join(sorted(circle)[:5])
        for child in sorted(circle):
            inside = [
                one for one in chosen.get(child, ()) if one.id in circle and one.is_parent_of(child)
            ]
            wrong = [one for one in inside if (one.id, child) not in present]
            if wrong:
                text = f"{members} descend from each other, by their sources: no edge is taken."
                findings.append(FamilyFinding(Kind.CYCLE, child, text))
                chosen[child] = [
                    replace(one, id="") if one in wrong else one for one in chosen[child]
                ]


def _edges(
    child: str,
    named: Sequence[NamedParent],
    bases: Mapping[str, set[str]],
    folds: Mapping[str, Recipe],
    records: Mapping[str, ModelRecord],
    findings: list[FamilyFinding],
) -> list[Inheritance]:
    """Return the edges to a child from its parents that are known."""
    complete = all(one.is_parent_of(child) for one in named)
    parents = [one for one in named if one.id != child]
    relation = parents[0].claim.relation
    known = [one for one in parents if one.id]
    claim = known[0].claim
    shares = [one.claim.share for one in parents]
    folded = complete and _is_folded(parents, bases)
    merged = complete and relation is Relation.MERGE and len(parents) > 1 and not folded
    weights = [1.0] * len(parents)
    if folded:
        text = "A 'merge' of a model and an adapter of it: the adapter was folded into the weights."
        findings.append(FamilyFinding(Kind.COMPOSITION, child, text))
    elif all(share is not None for share in shares):
        weights = [share or 1.0 for share in shares]
        merged = merged and abs(sum(weights) - 1) < 1e-6
    elif len(parents) > 1 and relation is not Relation.COMPOSITION:
        several = relation in _SEVERAL
        what = "it is not said what they are" if several else "it is not said in which shares"
        text = f"{len(parents)} parents, and {what}: equal shares are recorded."
        findings.append(FamilyFinding(Kind.RELATION if several else Kind.SHARES, child, text))
        weights = [1 / len(parents)] * len(parents)
    recipe = claim.recipe if complete else None
    if folded:
        known = sorted(known, key=lambda one: one.id in bases)
        recipe = folds.get(known[1].id)
        # The adapter descends from the base: so what the base hands down comes through it.
        weights = [1.0 if one.id in bases else LEAST_SHARE for one in parents]
    elif len(parents) == 1 and complete and _are_equal(records[child], records[known[0].id]):
        recipe = Recipe.AVERAGE  # a copy is the average of one
    places = {one.id: place for place, one in enumerate(known, 1)} if recipe else {}
    share = dict(zip(parents, weights, strict=True))
    return [
        Inheritance(
            one.id,
            child,
            InheritanceKind.DISTRIBUTED if merged else _step(records[one.id], records[child]),
            share[one],
            {},
            recipe,
            places.get(one.id, 0),
            one.claim.source.title,
            _confidence(one.claim),
        )
        for one in known
    ]


def _is_folded(parents: Sequence[NamedParent], bases: Mapping[str, set[str]]) -> bool:
    """Whether a merge is of one model and one adapter of just that model."""
    if len(parents) != 2 or parents[0].claim.relation is not Relation.MERGE:
        return False
    adapters = [one.id for one in parents if one.id in bases]
    others = {one.id for one in parents if one.id not in bases}
    return len(adapters) == 1 and bases[adapters[0]] == others


def _bases(adapter: str, chosen: Mapping[str, Sequence[NamedParent]]) -> set[str]:
    return {one.id for one in chosen.get(adapter, ())}


def _are_equal(child: ModelRecord, parent: ModelRecord) -> bool:
    return child.digest != "" and child.digest == parent.digest


def _step(parent: ModelRecord, child: ModelRecord) -> InheritanceKind:
    """Return the kind of an edge by training: with the same class names, or others."""
    same = parent.labels == child.labels
    return InheritanceKind.INCREMENTAL if same else InheritanceKind.TRANSFER


def _confidence(claim: Claim) -> float:
    return claim.source.confidence if claim.confidence is None else claim.confidence
