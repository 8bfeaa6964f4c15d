"""Places of boxes in a drawing: generations from left to right, made once on the server.

Up to some hundred boxes get the layout of the reports, in which no edge runs through a box.  Larger
graphs, and those with a generation that would be a thread, get blocks of columns.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disinherit.common.graph.blocks import is_crowded, place_in_blocks
from disinherit.common.graph.layout import Layout, lay_out
from disinherit.ui.lineage import generations

_FEW_WAYS = 1200
_COLUMN, _ROW, _BLOCK = 150.0, 56.0, 60.0
_HALF_BOX = 54.0

Point = tuple[float, float]


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
    if ways <= _FEW_WAYS and not is_crowded(columns):
        return _fine(lay_out(columns, edges), edges)
    return Drawing(place_in_blocks(columns, edges, _COLUMN, _ROW, _BLOCK), {})


def _fine(layout: Layout, edges: Sequence[tuple[str, str]]) -> Drawing:
    at = {key: (_COLUMN * x, _ROW * y) for key, (x, y) in layout.places.items()}
    ways = {
        edge: [(at[key][0] + side * _HALF_BOX, at[key][1]) for key in way[1:-1] for side in (-1, 1)]
        for edge, way in zip(edges, layout.ways, strict=True)
        if len(way) > 2
    }
    return Drawing({key: one for key, one in at.items() if isinstance(key, str)}, ways)
