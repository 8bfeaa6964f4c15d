"""Places of boxes in a drawing: generations from left to right, made once on the server.

Up to some hundred boxes get the layout of the reports, in which no edge runs through a box.  Larger
graphs get columns: a generation of many boxes becomes a block of several columns, its boxes in the
order of their parents, so that the drawing is about as wide as it is high.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disinherit.common.graph.layout import Layout, lay_out
from disinherit.ui.lineage import generations

_FEW_BOXES, _FEW_WAYS = 150, 1200
_COLUMN, _ROW, _BLOCK = 150.0, 56.0, 60.0
_LEAST_ROWS = 12
_HALF_BOX = 54.0

Point = tuple[float, float]
Places = dict[str, Point]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Where everything is, in pixels.

    Attributes:
        places: model -> the middle of its box.
        ways: (parent, child) -> points through which a long edge goes around boxes.
    """

    places: Mapping[str, Point]
    ways: Mapping[tuple[str, str], Sequence[Point]]


@functools.lru_cache(maxsize=32)
def place(models: tuple[str, ...], edges: tuple[tuple[str, str], ...]) -> Drawing:
    """Return where boxes are, and the ways of long edges.

    Args:
        models: the models.
        edges: (parent, child), both of them among the models; without a circle.

    Example:
        >>> place(("a", "b"), (("a", "b"),)).places["b"][0]
        150.0
    """
    level = generations(models, edges)
    columns: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for one in models:
        columns[level[one]].append(one)
    ways = sum(level[child] - level[parent] for parent, child in edges)
    if len(models) <= _FEW_BOXES and ways <= _FEW_WAYS:
        return _fine(lay_out(columns, edges), edges)
    return Drawing(_blocks(columns, edges), {})


def _fine(layout: Layout, edges: Sequence[tuple[str, str]]) -> Drawing:
    at = {key: (_COLUMN * x, _ROW * y) for key, (x, y) in layout.places.items()}
    ways = {
        edge: [(at[key][0] + side * _HALF_BOX, at[key][1]) for key in way[1:-1] for side in (-1, 1)]
        for edge, way in zip(edges, layout.ways, strict=True)
        if len(way) > 2
    }
    return Drawing({key: one for key, one in at.items() if isinstance(key, str)}, ways)


def _blocks(columns: Sequence[list[str]], edges: Sequence[tuple[str, str]]) -> Places:
    parents: dict[str, list[str]] = {}
    for parent, child in edges:
        parents.setdefault(child, []).append(parent)
    total = sum(map(len, columns))
    # As wide as high, given that a row is lower than a column is wide.
    rows = max(_LEAST_ROWS, round(math.sqrt(total * _COLUMN / _ROW / 2)))
    places: Places = {}
    x = 0.0
    for column in columns:
        rank = {
            one: sum(places[p][1] for p in near) / len(near) if (near := parents.get(one)) else 0.0
            for one in column
        }
        ordered = sorted(column, key=rank.__getitem__)
        wide = math.ceil(len(ordered) / rows)
        high = math.ceil(len(ordered) / max(wide, 1))
        for number, one in enumerate(ordered):
            # Rows first, so that neighbours in order are neighbours in height.
            row, place_in_row = divmod(number, wide)
            places[one] = x + _COLUMN * place_in_row, _ROW * (row - (high - 1) / 2)
        x += _COLUMN * wide + _BLOCK
    return places
