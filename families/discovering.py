"""Descendants that nobody recorded, found from weights alone.

Models with the same tensors are compared at the same places.  First comes what shows its direction:
rounded, quantised and pruned copies, and averages, as far as their weights decide it.  All others
are joined by a tree of least distances, as far as they are related.  Its direction is known only if
a person names a base.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np

from disinherit.common.errors import DataError
from disinherit.families.averaging import was_computed
from disinherit.families.evidence import Relation
from disinherit.families.folder_samples import Listed, read_samples
from disinherit.families.kinship import (
    MORE_ZEROS,
    is_scattered,
    left_of_update,
    rank_of_update,
    shares,
    unchanged,
    zeroed,
)
from disinherit.families.rounding import outside, rounded_to
from disinherit.families.sampling import Sample, sample

RELATED = 0.4
"""Distance up to which models with the same tensors count as related."""

LEAST_LEFT = 0.75
"""How much of a model's update must be left in a descendant that is farther, with a start.

Of two models that were trained from one start on data of one kind, 0.6 was left in each other.
"""

_NEIGHBOURS = 6
_UNSAID = "which of the two is the parent, their weights do not say: name it with --base"


@dataclass(frozen=True, slots=True)
class Kin:
    """Models that are related.

    Attributes:
        child: the descendant; where the direction is unknown, one of the two.
        parents: what it descends from, with shares.
        relation: what it is to them.
        directed: whether the direction is known.
        evidence: the figures that show it, for people to read.
        confidence: in (0, 1]; the order is measured, the numbers are a convention.
    """

    child: str
    parents: tuple[tuple[str, float], ...]
    relation: Relation
    directed: bool
    evidence: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Discovered:
    """What was found in a folder.

    Attributes:
        kin: the relations.
        alone: models that are related to none.
        unread: file -> why it was not read.
        listed: model -> how an edge list for `graph import` names it.
    """

    kin: tuple[Kin, ...]
    alone: tuple[str, ...]
    unread: Mapping[str, str]
    listed: Mapping[str, Listed]


def discover(folder: Path, bases: Sequence[str] = (), start: Path | None = None) -> Discovered:
    """Find which models in a folder descend from which.

    Args:
        folder: a folder with safetensors files, in it or below it.
        bases: names of models that descend from no other here.
        start: safetensors file with the weights that the training of a base started from; with it,
            descendants that were trained for long are found, too.

    Raises:
        DataError: if the folder is none or has no weights, a base is unknown, or the start cannot
            be read.
    """
    here = read_samples(folder)
    samples, unread = here.samples, here.unread
    known = {one.name for one in samples}
    for base in bases:
        if base not in known:
            why = f"which was not read: {unread[base]}" if base in unread else "which is none."
            raise DataError(
                f"Expected bases among the models of {folder} ({', '.join(sorted(known)[:20])}), "
                f"but got {base!r}, {why}"
            )
    begun = None if start is None else sample(start.name, [start])
    kin: list[Kin] = []
    for structure in sorted({one.structure for one in samples}):
        group = [one for one in samples if one.structure == structure]
        begins = begun if begun is not None and begun.structure == structure else None
        kin += _kin(group, frozenset(bases), begins)
    related = {name for one in kin for name in (one.child, *(parent for parent, _ in one.parents))}
    return Discovered(tuple(kin), tuple(sorted(known - related)), unread, here.listed)


def _kin(group: Sequence[Sample], bases: frozenset[str], start: Sample | None) -> list[Kin]:
    """Return the relations of models with the same tensors."""
    if len(group) < 2:
        return []
    apart = _distances(group)
    derived: dict[int, Kin] = {}
    for at, one in enumerate(group):
        if one.name not in bases and (found := _derived(at, group, apart, (), bases)):
            derived[at] = found
    for at, found in derived.items():  # an average of an average is one of its parents, too
        if len(found.parents) > 1:
            derived[at] = _derived(at, group, apart, derived, bases) or found
    free = [at for at in range(len(group)) if at not in derived]
    rest = _tree([group[at] for at in free], apart[np.ix_(free, free)], bases, start)
    return [*derived.values(), *rest]


def _distances(group: Sequence[Sample]) -> np.ndarray:
    values = np.stack([one.values for one in group]).astype(np.float64)
    squares = (values**2).sum(1)
    apart = np.maximum(squares[:, None] + squares - 2 * values @ values.T, 0)
    smaller = np.minimum(squares[:, None], squares)
    return np.asarray(np.sqrt(apart / np.maximum(smaller, np.finfo(float).tiny)))


def _derived(
    at: int,
    group: Sequence[Sample],
    apart: np.ndarray,
    without: Container[int],
    bases: Container[str],
) -> Kin | None:
    """Return what a model was computed from, if its weights show that.

    Args:
        at: place of the model.
        group: all models.
        apart: their distances, `[n, n]`.
        without: places of models that it is not compared with.
        bases: names of models that descend from no other.
    """
    one = group[at]
    nearest = (int(place) for place in np.argsort(apart[at], kind="stable"))
    near = [(place, group[place]) for place in nearest if place != at and place not in without]
    near = near[:_NEIGHBOURS]
    for place, other in near:
        if apart[at, place] == 0 and one.dtypes == other.dtypes:
            if (other.name not in bases, place) < (True, at):  # else the other is the copy
                return _copy(one, other, other.name in bases)
            continue
        if kind := rounded_to(one, other):
            return _whole(one, other, Relation.QUANTIZED, f"the same values, rounded to {kind}")
        if (share := zeroed(one, other)) and is_scattered(one, other):
            text = f"{share:.0%} of its values were set to zero, all others are equal"
            return _whole(one, other, Relation.FINETUNE, text)
    whole = [other for _, other in near if not other.quantised]
    return None if one.quantised else _average(one, whole, bases)


def _copy(one: Sample, other: Sample, directed: bool) -> Kin:
    text = "equal" if directed else f"equal; {_UNSAID}"
    return Kin(one.name, ((other.name, 1.0),), Relation.FINETUNE, directed, text, 1.0)


def _whole(one: Sample, other: Sample, relation: Relation, text: str) -> Kin:
    return Kin(one.name, ((other.name, 1.0),), relation, True, text, 0.95)


def _average(one: Sample, others: Sequence[Sample], bases: Container[str]) -> Kin | None:
    """Return of which models a model is the average, and whether it was computed from them."""
    found = shares(one, others)
    if not found:
        return None
    parents = [parent for parent, _ in found]
    directed = was_computed(one, parents, [parent.name in bases for parent in parents])
    text = "their average, in float32" if one.dtypes == {"float32"} else "their average"
    if not directed:
        text += (
            "; or one of them was computed from the others, their weights do not say which: name "
            "those that were not with --base"
        )
    named = tuple((parent.name, share) for parent, share in found)
    return Kin(one.name, named, Relation.MERGE, directed, text, 0.95)


def _tree(
    group: Sequence[Sample], apart: np.ndarray, bases: frozenset[str], start: Sample | None
) -> list[Kin]:
    """Return the relations of models that no computation explains, by a tree of least distances."""
    tree = nx.minimum_spanning_tree(_related(group, apart, start))
    kin = []
    for members in nx.connected_components(tree):
        named = [at for at in sorted(members) if group[at].name in bases]
        begin = named[0] if named else min(members)
        for parent, child in nx.bfs_edges(tree, begin, sort_neighbors=sorted):
            one, other = group[child], group[parent]
            directed = bool(named) and one.name not in bases
            kin.append(_fine_tuned(one, other, float(apart[child, parent]), directed, start))
    return kin


def _related(group: Sequence[Sample], apart: np.ndarray, start: Sample | None) -> nx.Graph:
    """Return which models are related, with their distances.

    Training seldom starts from a quantised copy: it is joined to its nearest, and nothing to it.
    """
    graph = nx.Graph()
    graph.add_nodes_from(range(len(group)))
    zeros = [float((one.values == 0).mean()) for one in group]
    for at in range(len(group)):
        for other in range(at):
            pair = group[at], group[other]
            sparse = abs(zeros[at] - zeros[other]) > MORE_ZEROS and _sparser(*pair)[1] > 0
            if sparse or _are_related(*pair, float(apart[at, other]), start):
                graph.add_edge(other, at, weight=float(apart[at, other]))
    for at in (at for at, one in enumerate(group) if one.quantised):
        if whole := [other for other in graph[at] if not group[other].quantised]:
            nearest = min(whole, key=lambda other: float(apart[at, other]))
            graph.remove_edges_from([(at, other) for other in list(graph[at]) if other != nearest])
    return graph


def _are_related(one: Sample, other: Sample, apart: float, start: Sample | None) -> bool:
    if start is None or apart <= RELATED:
        return apart <= RELATED
    left = (left_of_update(*ends, start.values) for ends in ((one, other), (other, one)))
    return max(left) >= LEAST_LEFT


def _sparser(one: Sample, other: Sample) -> tuple[Sample, float]:
    """Return the one of two models that is zero where the other is not, and the share of that."""
    share = zeroed(one, other)
    return (one, share) if share else (other, zeroed(other, one))


def _fine_tuned(
    one: Sample, other: Sample, apart: float, directed: bool, start: Sample | None
) -> Kin:
    parts = [f"distance {apart:.3f}"]
    confidence = 0.6
    if (rank := rank_of_update(one, other)) > 0:
        parts.append(f"the update has rank {rank}, as of a folded adapter")
        confidence = 0.9
    if same := unchanged(one, other):
        parts.append(f"{same:.0%} of the values in equal tensors")
        confidence = 0.9
    sparser, share = _sparser(one, other)
    if share:
        parts.append(f"{share:.0%} of the values are zero in {sparser.name}, all others are equal")
    for child, parent in ((one, other), (other, one)):
        if child.quantised and not parent.quantised and (wrong := outside(child, parent)):
            parts.append(
                f"{wrong:.0%} of the integers of {child.name} are not those of {parent.name}: a "
                "copy of another model"
            )
    if start is not None:
        left = left_of_update(one, other, start.values)
        parts.append(f"{left:.2f} of its update is left")
        confidence = max(confidence, 0.8)
    if not directed:
        parts.append(_UNSAID)
    return Kin(
        one.name, ((other.name, 1.0),), Relation.FINETUNE, directed, "; ".join(parts), confidence
    )
