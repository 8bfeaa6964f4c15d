"""Descendants that nobody recorded, found from weights alone.

Models with the same tensors are compared at the same places.  First comes what shows its direction:
copies, casts, quantised and pruned copies, averages.  All others are joined by a tree of least
distances, as far as they are related.  Its direction is known only if a person names a base.
"""

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np

from disinherit.common.errors import DataError
from disinherit.families.evidence import Relation
from disinherit.families.kinship import (
    SMALL_ERROR,
    is_cast,
    left_of_update,
    rank_of_update,
    shares,
    unchanged,
    zeroed,
)
from disinherit.families.reading import is_inside
from disinherit.families.sampling import Sample, sample
from disinherit.families.weight_files import grouped, is_index, read_indexes

RELATED = 0.4
"""Distance up to which models with the same tensors count as related."""

LEAST_LEFT = 0.75
"""How much of a model's update must be left in a descendant that is farther, with a start.

Of two models that were trained from one start on data of one kind, 0.6 was left in each other.
"""

_NEIGHBOURS = 6


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
    """

    kin: tuple[Kin, ...]
    alone: tuple[str, ...]
    unread: Mapping[str, str]


def discover(folder: Path, bases: Sequence[str] = (), start: Path | None = None) -> Discovered:
    """Find which models in a folder descend from which.

    Args:
        folder: a folder with safetensors files, in it or below it.
        bases: names of models that descend from no other here.
        start: safetensors file with the weights that the training of a base started from; with it,
            descendants that were trained for long are found, too.

    Raises:
        DataError: if the folder is none, a base is unknown, or the start cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder with weights, but got {str(folder)!r}.")
    samples, unread = _read(folder)
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
    return Discovered(tuple(kin), tuple(sorted(known - related)), unread)


def _read(folder: Path) -> tuple[list[Sample], dict[str, str]]:
    top, samples = folder.resolve(), []
    unread: dict[str, str] = {}
    for place, folders, names in os.walk(top):
        folders.sort()
        path = Path(place)
        files = {
            name: path / name
            for name in sorted(names)
            if (name.endswith(".safetensors") or is_index(name)) and is_inside(path / name, top)
        }
        indexes, faults = read_indexes(files)
        unread |= {one.relative_to(top).as_posix(): text for one, text in faults}
        weights = {name: one for name, one in files.items() if not is_index(name)}
        found = grouped(weights, indexes)
        groups = [
            one for one in found if one.stem != "adapter_model" and one.ending == "safetensors"
        ]
        for group in groups:
            whole = path if len(groups) == 1 and path != top else path / group.stem
            name = whole.relative_to(top).as_posix()
            if group.missing:
                unread[name] = f"{group.missing} of its shards are missing"
                continue
            try:
                samples.append(sample(name, group.paths))
            except DataError as error:
                unread[name] = str(error)
    return samples, unread


def _kin(group: Sequence[Sample], bases: frozenset[str], start: Sample | None) -> list[Kin]:
    """Return the relations of models with the same tensors."""
    if len(group) < 2:
        return []
    apart = _distances(group)
    derived: dict[int, Kin] = {}
    for at, one in enumerate(group):
        if one.name not in bases and (found := _derived(at, group, apart, ())):
            derived[at] = found
    for at, found in derived.items():  # an average of an average is one of its parents, too
        if len(found.parents) > 1:
            derived[at] = _derived(at, group, apart, derived) or found
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
    at: int, group: Sequence[Sample], apart: np.ndarray, without: Container[int]
) -> Kin | None:
    """Return what a model was computed from, if its weights show that.

    Args:
        at: place of the model.
        group: all models.
        apart: their distances, `[n, n]`.
        without: places of models that it is not compared with.
    """
    one = group[at]
    nearest = (int(place) for place in np.argsort(apart[at], kind="stable"))
    near = [(place, group[place]) for place in nearest if place != at and place not in without]
    near = near[:_NEIGHBOURS]
    for place, other in near:
        if apart[at, place] == 0 and one.dtypes == other.dtypes:
            if place < at:  # of copies, the first by name stays
                return Kin(one.name, ((other.name, 1.0),), Relation.FINETUNE, False, "equal", 1.0)
            continue
        if one.quantised and not other.quantised and apart[at, place] <= SMALL_ERROR:
            text = f"integers; rounding error {apart[at, place]:.3f}"
            return Kin(one.name, ((other.name, 1.0),), Relation.QUANTIZED, True, text, 0.95)
        if is_cast(one, other):
            text = f"the same values, rounded to {next(iter(one.dtypes))}"
            return Kin(one.name, ((other.name, 1.0),), Relation.QUANTIZED, True, text, 0.95)
        if share := zeroed(one, other):
            text = f"{share:.0%} of its values were set to zero, all others are equal"
            return Kin(one.name, ((other.name, 1.0),), Relation.FINETUNE, True, text, 0.95)
    whole = [other for _, other in near if not other.quantised]
    if not one.quantised and (found := shares(one, whole)):
        text = "their average, in float32" if one.dtypes == {"float32"} else "their average"
        return Kin(one.name, found, Relation.MERGE, True, text, 0.95)
    return None


def _tree(
    group: Sequence[Sample], apart: np.ndarray, bases: frozenset[str], start: Sample | None
) -> list[Kin]:
    """Return the relations of models that no computation explains, by a tree of least distances."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(group)))
    for at in range(len(group)):
        for other in range(at):
            if _are_related(group[at], group[other], float(apart[at, other]), start):
                graph.add_edge(other, at, weight=float(apart[at, other]))
    tree = nx.minimum_spanning_tree(graph)
    kin = []
    for members in nx.connected_components(tree):
        named = [at for at in sorted(members) if group[at].name in bases]
        begin = named[0] if named else min(members)
        for parent, child in nx.bfs_edges(tree, begin, sort_neighbors=sorted):
            one, other = group[child], group[parent]
            directed = bool(named) and one.name not in bases
            kin.append(_fine_tuned(one, other, float(apart[child, parent]), directed, start))
    return kin


def _are_related(one: Sample, other: Sample, apart: float, start: Sample | None) -> bool:
    if start is None or apart <= RELATED:
        return apart <= RELATED
    left = (left_of_update(*ends, start.values) for ends in ((one, other), (other, one)))
    return max(left) >= LEAST_LEFT


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
    if start is not None:
        left = left_of_update(one, other, start.values)
        parts.append(f"{left:.2f} of its update is left")
        confidence = max(confidence, 0.8)
    if not directed:
        parts.append("which of the two is the parent, its weights do not say")
    return Kin(
        one.name, ((other.name, 1.0),), Relation.FINETUNE, directed, "; ".join(parts), confidence
    )
