"""Guarantees of the layout of a drawing, on random layered graphs."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.graph.layout import lay_out


@st.composite
def layered(draw: st.DrawFn) -> tuple[list[list[str]], list[tuple[str, str]]]:
    sizes = draw(st.lists(st.integers(1, 4), max_size=5))
    generations = [[f"m{x}.{y}" for y in range(size)] for x, size in enumerate(sizes)]
    pairs = [
        (parent, child)
        for x, ids in enumerate(generations)
        for parent in ids
        for later in generations[x + 1 :]
        for child in later
    ]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
    return generations, edges


@given(layered())
def test_models_and_passing_edges_keep_their_distance(
    case: tuple[list[list[str]], list[tuple[str, str]]],
) -> None:
    generations, edges = case
    layout = lay_out(generations, edges)
    columns: dict[float, list[tuple[float, float]]] = {}
    for key, (x, y) in layout.places.items():
        columns.setdefault(x, []).append((y, 0.5 if isinstance(key, str) else 0.3))
    for column in columns.values():
        for (y, room), (next_y, next_room) in pairwise(sorted(column)):
            assert next_y - y >= room + next_room - 1e-9
    heights = [y for _, y in layout.places.values()]
    assert min(heights, default=0) == 0
    assert max(heights, default=0) == layout.rows


@given(layered())
def test_every_edge_goes_from_generation_to_generation(
    case: tuple[list[list[str]], list[tuple[str, str]]],
) -> None:
    generations, edges = case
    layout = lay_out(generations, edges)
    for x, ids in enumerate(generations):
        assert {layout.places[id][0] for id in ids} <= {x}
    for (parent, child), way in zip(edges, layout.ways, strict=True):
        assert (way[0], way[-1]) == (parent, child)
        assert all(layout.places[b][0] - layout.places[a][0] == 1 for a, b in pairwise(way))


def test_avoidable_crossings_are_avoided() -> None:
    layout = lay_out([["a", "b"], ["c", "d"]], [("a", "d"), ("b", "c")])
    height = {key: y for key, (_, y) in layout.places.items()}
    assert (height["a"] < height["b"]) == (height["d"] < height["c"])
