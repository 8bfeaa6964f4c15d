"""Layout of a drawing: generations from left to right, long edges between the boxes.

A small layered layout (Sugiyama et al. 1981): an edge that spans several generations gets a way
point in each of them.  Way points and models are ordered by the mean rank of their neighbours, then
moved towards them as far as space allows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_SWEEPS = 12
_ROOM, _WAY_ROOM = 0.5, 0.3  # half of the least distance of a model, or of a passing edge

Key = str | tuple[int, int]  # a model id, or (edge index, generation) of a way point


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of models and way points: x in generations, y in rows, downwards from 0.

    Attributes:
        places: model id or way point -> (x, y).
        ways: for every edge its keys, from parent to child.
        rows: distance between the first and the last row.
    """

    places: dict[Key, tuple[float, float]]
    ways: list[list[Key]]
    rows: float


@dataclass(slots=True)
class _Layers:
    """Keys per generation, in vertical order, and their neighbours on either side."""

    order: list[list[Key]]
    left: dict[Key, list[Key]] = field(default_factory=dict)
    right: dict[Key, list[Key]] = field(default_factory=dict)


def lay_out(
    generations: Sequence[Sequence[str]],
    edges: Sequence[tuple[str, str]],
    heights: Mapping[str, float] | None = None,
) -> Layout:
    """Place models by generation so that no two share a place and no edge runs through a model.

    Args:
        generations: the ids of each generation.
        edges: (parent, child), each from an earlier to a later generation.
        heights: how many rows a model takes, where it is not one.

    Returns:
        The layout, with the same index in `ways` as in `edges`.

    Example:
        >>> layout = lay_out([["a"], ["b"], ["c"]], [("a", "b"), ("b", "c"), ("a", "c")])
        >>> layout.ways[2]
        ['a', (2, 1), 'c']
        >>> layout.places["b"][1] != layout.places[(2, 1)][1]
        True
    """
    layers = _Layers([list(ids) for ids in generations])
    level = {id: x for x, ids in enumerate(generations) for id in ids}
    ways: list[list[Key]] = []
    for index, (parent, child) in enumerate(edges):
        passed: list[Key] = [(index, x) for x in range(level[parent] + 1, level[child])]
        for x, key in enumerate(passed, level[parent] + 1):
            layers.order[x].append(key)
        ways.append([parent, *passed, child])
        for one, other in pairwise(ways[-1]):
            layers.right.setdefault(one, []).append(other)
            layers.left.setdefault(other, []).append(one)
    _untangle(layers)
    rooms = {key: rows / 2 for key, rows in (heights or {}).items()}
    middles = _relax(layers, rooms)
    top = min(middles.values(), default=0.0)
    places = {
        key: (float(x), middles[key] - top) for x, keys in enumerate(layers.order) for key in keys
    }
    return Layout(places, ways, max(middles.values(), default=0.0) - top)


def _untangle(layers: _Layers) -> None:
    """Order each generation by the mean rank of its neighbours, sweeping back and forth."""
    rank = {key: float(y) for keys in layers.order for y, key in enumerate(keys)}
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        joined = layers.left if forward else layers.right
        for keys in layers.order if forward else reversed(layers.order):
            wish = {key: _mean([rank[k] for k in joined.get(key, [])], rank[key]) for key in keys}
            keys.sort(key=wish.__getitem__)
            rank.update((key, float(y)) for y, key in enumerate(keys))


def _relax(layers: _Layers, rooms: Mapping[str, float]) -> dict[Key, float]:
    """Return heights close to the mean of the neighbours, with the least distances."""
    height = {key: y - (len(keys) - 1) / 2 for keys in layers.order for y, key in enumerate(keys)}
    for _ in range(_SWEEPS):
        for keys in layers.order:
            placed: list[float] = []
            lowest, missed = -math.inf, 0.0
            for key in keys:
                near = layers.left.get(key, []) + layers.right.get(key, [])
                wish = _mean([height[k] for k in near], height[key])
                room = rooms.get(key, _ROOM) if isinstance(key, str) else _WAY_ROOM
                placed.append(max(wish, lowest + room))
                lowest = placed[-1] + room
                missed += wish - placed[-1]
            shift = missed / max(len(keys), 1)
            height.update(zip(keys, (y + shift for y in placed), strict=True))
    return height


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
