"""Places of many boxes: each generation a block of columns, which no layout of boxes can hold.

Boxes of a block are in the order of their parents, so that lines are short where that is possible.
The whole is about as wide as it is high.
"""

import math
from collections.abc import Iterable, Sequence

FEW = 150
"""Boxes up to which `disinherit.common.graph.layout` draws better."""

TALLEST = 36
"""Boxes of a generation that can be read in one column."""

_LEAST_ROWS = 12


def is_crowded(generations: Sequence[Sequence[str]]) -> bool:
    """Return whether generations are so many or so large that they are placed in blocks.

    Example:
        >>> is_crowded([["a"], ["b", "c"]]), is_crowded([["a"], ["b"] * 40])
        (False, True)
    """
    sizes = [len(one) for one in generations]
    return sum(sizes) > FEW or max(sizes, default=0) > TALLEST


def place_in_blocks(
    generations: Sequence[Sequence[str]],
    edges: Iterable[tuple[str, str]],
    column: float,
    row: float,
    gap: float,
) -> dict[str, tuple[float, float]]:
    """Return the middle of each box: from left to right, and around 0 from top to bottom.

    Args:
        generations: the boxes, ancestors first.
        edges: (parent, child).
        column: from one column to the next.
        row: from one row to the next.
        gap: between two generations.

    Example:
        >>> place_in_blocks([["a"], ["b", "c"]], [("a", "b"), ("a", "c")], 10.0, 2.0, 1.0)
        {'a': (0.0, 0.0), 'b': (11.0, -1.0), 'c': (11.0, 1.0)}
    """
    parents: dict[str, list[str]] = {}
    for parent, child in edges:
        parents.setdefault(child, []).append(parent)
    total = sum(map(len, generations))
    # As wide as high, given that a row is lower than a column is wide.
    rows = max(_LEAST_ROWS, round(math.sqrt(total * column / row / 2)))
    places: dict[str, tuple[float, float]] = {}
    x = 0.0
    for generation in generations:
        rank = {
            one: sum(places[p][1] for p in near) / len(near)
            if (near := [p for p in parents.get(one, ()) if p in places])
            else 0.0
            for one in generation
        }
        ordered = sorted(generation, key=rank.__getitem__)
        wide = math.ceil(len(ordered) / rows)
        high = math.ceil(len(ordered) / max(wide, 1))
        for number, one in enumerate(ordered):
            # Rows first, so that neighbours in order are neighbours in height.
            line, place_in_line = divmod(number, wide)
            places[one] = x + column * place_in_line, row * (line - (high - 1) / 2)
        x += column * wide + gap
    return places
