"""Drawings of the inheritance graph: Graphviz's DOT and PNG.

Roots, affected and untouched versions differ in colour (Okabe and Ito's, distinct without colour
vision) and in the width of their border.
"""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from disinherit.common.errors import GraphError
from disinherit.common.extras import importing
from disinherit.common.graph.blocks import is_crowded, place_in_blocks
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.layout import Key, lay_out
from disinherit.common.graph.pictures import DrawnModel, Picture, find_picture
from disinherit.common.graph.records import Inheritance, InheritanceKind
from disinherit.common.text import elide


@dataclass(frozen=True, slots=True)
class _Style:
    """Style of a version in a drawing: colours, and width of the border in points."""

    fill: str
    border: str
    width: float


_STYLES = {
    "root": _Style("#fbe3ae", "#d55e00", 3.0),
    "affected": _Style("#d3e8f7", "#0072b2", 1.8),
    "untouched": _Style("#f4f5f6", "#8b939e", 1.0),
}
_INK, _MUTED, _LINE = "#1d2430", "#4d5763", "#8b939e"

# Inches: box, gap between generations, distance of rows, margin, strip of the legend.
_BOX_WIDTH, _BOX_HEIGHT, _GAP, _ROW, _MARGIN, _LEGEND = 1.45, 0.52, 0.95, 0.78, 0.25, 0.45
_MAX_INCHES = 60.0  # the raster has limits: a very large graph is scaled down, not refused
_DPI = 150

_Point = tuple[float, float]


def to_dot(
    graph: InheritanceGraph,
    roots: Collection[str] = (),
    *,
    cleansed: Collection[str] = (),
    folded: bool = False,
) -> str:
    """Write a graph in Graphviz's DOT language, with roots and affected versions coloured.

    Generations are ranks, and Graphviz keeps the models of an owner (`group`) in line.

    Args:
        graph: the graph to draw.
        roots: roots of a request; without them nothing is coloured.
        cleansed: successors that the request's campaign made, as in `InheritanceGraph.affected`.
        folded: whether all versions of a model are one box, with what it forgot.

    Raises:
        GraphError: if the graph refuses the roots or the cleansed versions.
    """
    picture = find_picture(graph, roots, cleansed, folded=folded)
    lines = [
        "digraph inheritance {",
        "  rankdir=LR;",
        '  node [shape=box, style="filled,rounded"];',
    ]
    for model in picture.models:
        style = _STYLES[model.role]
        label = "\\n".join(map(_escape, filter(None, (model.id, model.owner, model.became))))
        lines.append(
            f'  "{model.id}" [label="{label}", group="{_escape(model.owner)}", '
            f'fillcolor="{style.fill}", color="{style.border}", penwidth={style.width:g}];'
        )
    for ids in picture.generations:
        lines.append("  { rank=same; " + " ".join(f'"{id}";' for id in ids) + " }")
    for edge in picture.edges:
        parts = [f"{edge.kind} {edge.weight:.3g}" if edge.kind.merges else f"{edge.kind}"]
        parts += [f"{source} → {target}" for source, target in sorted(edge.labels.items())]
        dashed = ", style=dashed" if edge.kind is InheritanceKind.UNLEARNED else ""
        label = "\\n".join(map(_escape, parts))
        lines.append(f'  "{edge.parent}" -> "{edge.child}" [label="{label}"{dashed}];')
    return "\n".join([*lines, "}"]) + "\n"


def to_png(
    graph: InheritanceGraph,
    roots: Collection[str] = (),
    *,
    cleansed: Collection[str] = (),
    folded: bool = False,
) -> bytes:
    """Draw a graph, generations from left to right, coloured as by `to_dot`, with a legend.

    A box names the version and its owner; a number on an edge is the weight in a merge.  Of more
    than some hundred versions, each generation is a block of columns.

    Args:
        graph: the graph to draw.
        roots: roots of a request; without them nothing is coloured.
        cleansed: successors that the request's campaign made, as in `InheritanceGraph.affected`.
        folded: whether all versions of a model are one box, with what it forgot.

    Raises:
        GraphError: if matplotlib cannot be imported, or the graph refuses the roots or the
            cleansed versions.
    """
    picture = find_picture(graph, roots, cleansed, folded=folded)
    with importing("a drawing in PNG", lambda line: GraphError(f"{line} Or write DOT.")):
        from matplotlib.figure import Figure
    edges = picture.edges
    places, ways = _places(picture)
    handles = _legend({one.role for one in picture.models} if roots else (), edges)
    bottom = _MARGIN + (_LEGEND if handles else 0.0)
    # The legend needs as much width as two generations.
    right = max((x for x, _ in places.values()), default=0.0) + _BOX_WIDTH
    width = 2 * _MARGIN + max(right, 2 * (_BOX_WIDTH + _GAP))
    lowest = max((y for _, y in places.values()), default=0.0)
    height = bottom + _MARGIN + lowest + _BOX_HEIGHT
    scale = min(1.0, _MAX_INCHES / width, _MAX_INCHES / height)
    figure = Figure(figsize=(width * scale, height * scale), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    middle = height - _MARGIN - _BOX_HEIGHT / 2
    places = {key: (_MARGIN + x, middle - y) for key, (x, y) in places.items()}
    taken: list[_Point] = []
    for edge, way in zip(edges, ways, strict=True):
        tainted = (edge.parent, edge.child) in picture.tainted
        _draw_edge(axes, edge, [places[key] for key in way], tainted, scale, taken)
    for model in picture.models:
        _draw_box(axes, model, places[model.id], scale)
    if handles:
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(_MARGIN / width, _MARGIN / 2 / height),
            borderaxespad=0,
            ncols=len(handles),
            frameon=False,
            fontsize=9 * scale,
            labelcolor=_INK,
            handlelength=1.8,
            columnspacing=1.4,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # without pyplot: always Agg, and no global state
    return buffer.getvalue()


def _places(picture: Picture) -> tuple[dict[Key, _Point], Sequence[Sequence[Key]]]:
    """Return the left middle of each box in inches, from the top left corner, and ways of edges.

    Where boxes are many, generations are blocks, and edges may cross boxes.
    """
    pairs = [(edge.parent, edge.child) for edge in picture.edges]
    pitch = _BOX_WIDTH + _GAP
    if not is_crowded(picture.generations):
        layout = lay_out(picture.generations, pairs)
        return {key: (x * pitch, y * _ROW) for key, (x, y) in layout.places.items()}, layout.ways
    column = _BOX_WIDTH + _GAP / 4
    found = place_in_blocks(picture.generations, pairs, column, _ROW, _GAP)
    highest = min(y for _, y in found.values())
    return {key: (x, y - highest) for key, (x, y) in found.items()}, pairs


def _draw_box(axes: Any, model: DrawnModel, place: _Point, scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = _STYLES[model.role]
    x, y = place
    axes.add_patch(
        FancyBboxPatch(
            (x, y - _BOX_HEIGHT / 2),
            _BOX_WIDTH,
            _BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.09",
            facecolor=style.fill,
            edgecolor=style.border,
            linewidth=style.width * scale,
            zorder=3,
        )
    )
    name = {"ha": "center", "va": "center", "zorder": 4}
    x += _BOX_WIDTH / 2
    up = 0.04 if model.became else 0.0
    shown, owner = elide(model.id, 15), elide(model.owner, 20)
    axes.text(x, y + 0.1 + up, shown, size=10 * scale, weight="bold", color=_INK, **name)
    axes.text(x, y - 0.12 + 2 * up, owner, size=8 * scale, color=_MUTED, **name)
    if model.became:
        axes.text(x, y - 0.18, elide(model.became, 22), size=7 * scale, color=_INK, **name)


def _draw_edge(
    axes: Any,
    edge: Inheritance,
    places: Sequence[_Point],
    tainted: bool,
    scale: float,
    taken: list[_Point],
) -> None:
    """Draw an edge along its way points; `taken` holds the places of weights and gets one more."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points, codes, spots = _curve(places)
    colour = _STYLES["affected"].border if tainted else _LINE
    axes.add_patch(
        FancyArrowPatch(
            path=Path(points, [getattr(Path, code) for code in codes]),
            arrowstyle="-|>",
            mutation_scale=11 * scale,
            color=colour,
            linewidth=(1.6 if tainted else 1.0) * scale,
            linestyle="--" if edge.kind is InheritanceKind.UNLEARNED else "-",
            zorder=2 if tainted else 1,
        )
    )
    free = [
        (x, y) for x, y in spots if all(abs(x - u) > 0.42 or abs(y - v) > 0.18 for u, v in taken)
    ]
    if edge.kind.merges and free:
        taken.append(free[0])
        axes.text(
            *free[0],
            f"{edge.weight:.2g}",
            size=7.5 * scale,
            color=colour if tainted else _MUTED,
            ha="center",
            va="center",
            zorder=2.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2 * scale},
        )


def _curve(places: Sequence[_Point]) -> tuple[list[_Point], list[str], list[_Point]]:
    """Return points and codes of a curve along `places`, and possible places of its weight."""
    x, y = places[0][0] + _BOX_WIDTH, places[0][1]
    points, codes, spots = [(x, y)], ["MOVETO"], []
    for u, v in places[1:]:
        if len(points) > 1:  # straight past the boxes of the generation
            x += _BOX_WIDTH
            points.append((x, y))
            codes.append("LINETO")
        bend = (u - x) / 2
        points += [(x + bend, y), (u - bend, v), (u, v)]
        codes += ["CURVE4"] * 3
        spots += [_on_curve((x, y), (u, v), t) for t in (0.36, 0.5, 0.64)]
        x, y = u, v
    return points, codes, spots


def _on_curve(start: _Point, stop: _Point, t: float) -> _Point:
    """Return the point at `t` of a cubic Bezier curve that leaves and arrives horizontally."""
    (x, y), (u, v) = start, stop
    across = 1.5 * t * (1 - t) + t**3
    down = t * t * (3 - 2 * t)
    return x + across * (u - x), y + down * (v - y)


def _legend(present: Collection[str], edges: Sequence[Inheritance]) -> list[Any]:
    """Return an entry for each role and kind of line in the drawing."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(facecolor=style.fill, edgecolor=style.border, linewidth=style.width, label=role)
        for role, style in _STYLES.items()
        if role in present
    ]
    if "affected" in present:
        blue = _STYLES["affected"].border
        entries.append(Line2D([], [], color=blue, linewidth=1.6, label="inherits from affected"))
    if any(edge.kind is InheritanceKind.UNLEARNED for edge in edges):
        entries.append(Line2D([], [], color=_LINE, linestyle="--", label="unlearned"))
    return entries


def _escape(text: str) -> str:
    """Escape a text for a DOT label, so that it is shown literally."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return shown.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
