"""Drawings of an inheritance graph: contents and refusals."""

import io
import sys
from collections.abc import Callable

import pytest

from disinherit.common.errors import GraphError
from disinherit.common.graph.drawing import to_dot, to_png
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from tests.support.graph_cases import sample

ROOT, AFFECTED, UNTOUCHED = "#fbe3ae", "#d3e8f7", "#f4f5f6"


def test_dot_escapes_and_marks() -> None:
    root = f'fillcolor="{ROOT}", color="#d55e00", penwidth=3'
    affected = f'fillcolor="{AFFECTED}", color="#0072b2", penwidth=1.8'
    untouched = f'fillcolor="{UNTOUCHED}", color="#8b939e", penwidth=1'
    assert to_dot(sample(), ["r"], cleansed=["t2"]) == (
        "digraph inheritance {\n"
        "  rankdir=LR;\n"
        '  node [shape=box, style="filled,rounded"];\n'
        f'  "r" [label="r\\nann", group="ann", {root}];\n'
        f'  "s" [label="s\\nbob", group="bob", {untouched}];\n'
        f'  "m" [label="m\\nbob", group="bob", {affected}];\n'
        f'  "t" [label="t\\ncy", group="cy", {affected}];\n'
        f'  "t2" [label="t2\\ncy", group="cy", {untouched}];\n'
        f'  "u" [label="u\\ncy", group="cy", {untouched}];\n'
        '  { rank=same; "r"; "s"; "u"; }\n'
        '  { rank=same; "m"; }\n'
        '  { rank=same; "t"; }\n'
        '  { rank=same; "t2"; }\n'
        '  "r" -> "m" [label="federated 0.25"];\n'
        '  "s" -> "m" [label="federated 0.75"];\n'
        '  "m" -> "t" [label="transfer\\ncat → \\"K\\\\&amp;amp;\\\\n"];\n'
        '  "t" -> "t2" [label="unlearned", style=dashed];\n'
        "}\n"
    )


def test_a_folded_drawing_has_each_model_once_with_what_it_forgot() -> None:
    drawn = to_dot(sample(), ["r"], folded=True)
    assert '"t2"' not in drawn
    assert '"t" [label="t\\ncy\\nbecame t2", group="cy"' in drawn
    assert drawn.count("->") == 3
    assert pixels(to_png(sample(), folded=True))[0] < pixels(to_png(sample()))[0]


def test_a_child_of_two_versions_of_a_model_has_one_edge_with_both_weights() -> None:
    graph = sample()
    graph.add(
        ModelRecord("v", "bob", "arch", (), "d7", 7),
        [
            Inheritance("t", "v", InheritanceKind.FEDERATED, 0.25),
            Inheritance("t2", "v", InheritanceKind.FEDERATED, 0.75),
        ],
    )
    drawn = to_dot(graph, ["t2"], folded=True)
    assert drawn.count('"t" -> "v" [label="federated 1"]') == 1
    assert f'"v" [label="v\\nbob", group="bob", fillcolor="{AFFECTED}"' in drawn
    assert f'"t" [label="t\\ncy\\nbecame t2", group="cy", fillcolor="{ROOT}"' in drawn


def test_dot_without_roots_colours_nothing() -> None:
    assert ROOT not in to_dot(sample())
    assert AFFECTED not in to_dot(sample())
    assert AFFECTED in to_dot(sample(), ["s"])


def pixels(png: bytes) -> tuple[int, int, set[str]]:
    """Width, height and the colours that occur."""
    import matplotlib.image

    image = matplotlib.image.imread(io.BytesIO(png))
    height, width = image.shape[:2]
    values = (image[..., :3] * 255).round().astype(int).reshape(-1, 3)
    return (
        width,
        height,
        {"#{:02x}{:02x}{:02x}".format(*value) for value in set(map(tuple, values))},
    )


def test_png_is_drawn_with_the_colours_of_the_request() -> None:
    colours = pixels(to_png(sample(), ["r"], cleansed=["t2"]))[2]
    assert {ROOT, AFFECTED, UNTOUCHED} <= colours
    plain = pixels(to_png(sample()))[2]
    assert UNTOUCHED in plain
    assert not {ROOT, AFFECTED} & plain


def test_a_png_of_the_empty_graph_is_blank() -> None:
    assert pixels(to_png(InheritanceGraph()))[2] == {"#ffffff"}


def test_a_png_of_many_models_is_a_block_and_no_thread() -> None:
    graph = InheritanceGraph()
    graph.add(ModelRecord("root", "ann", "a", ("cat",), "", 1), [])
    for number in range(200):
        edge = Inheritance("root", f"m{number}", InheritanceKind.TRANSFER)
        graph.add(ModelRecord(f"m{number}", "ann", "a", ("cat",), "", number + 2), [edge])
    wide, high, _ = pixels(to_png(graph))
    assert 1 / 3 < wide / high < 3


def test_png_shortens_long_names() -> None:
    long = ModelRecord("m" * 128, "o" * 128, "", (), "", 0)
    short = ModelRecord("m", "o", "", (), "", 0)
    width, height, _ = pixels(to_png(InheritanceGraph([long])))
    assert (width, height) == pixels(to_png(InheritanceGraph([short])))[:2]


def test_png_of_a_long_chain_stays_within_the_raster() -> None:
    records = [ModelRecord(f"m{age:04}", "ann", "", (), "", age) for age in range(40)]
    edges = [
        Inheritance(records[age].id, records[age + 1].id, InheritanceKind.INCREMENTAL)
        for age in range(39)
    ]
    assert pixels(to_png(InheritanceGraph(records, edges)))[0] == 60 * 150


def test_a_png_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GraphError, match=r"`pip install '\.\[simulation\]'`"):
        to_png(sample())


@pytest.mark.parametrize("draw", [to_dot, to_png])
def test_drawings_refuse_unknown_roots(
    draw: Callable[[InheritanceGraph, list[str]], object],
) -> None:
    with pytest.raises(GraphError, match="but got 'x'"):
        draw(sample(), ["x"])
