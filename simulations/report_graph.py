"""The inheritance graph as SVG: generations left to right, long edges routed between the nodes.

The layout is a small layered one (Sugiyama): an edge that spans several generations gets a way
point in each one it passes, way points and nodes are ordered by the mean of their neighbours, and
then pulled towards them as far as the minimal distance allows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

from disinherit.simulations.report_schema import Edge, Graph, ModelReport, Node
from disinherit.simulations.report_svg import elide, rect, svg, text
from disinherit.simulations.report_verdict import number

_BOX_WIDTH, _BOX_HEIGHT, _GAP = 124.0, 44.0, 84.0
_NODE_ROOM, _LINE_ROOM = 30.0, 10.0  # half of the distance that a node, or a line, keeps
_LABEL_WIDTH, _LABEL_HEIGHT, _MARGIN = 30.0, 14.0, 8.0
_MARKS = {"applied": "✓", "already_applied": "✓", "failed": "✕", "pending": "…", "untouched": ""}

_Point = tuple[float, float]
_Key = str | tuple[int, int]  # a node id, or (edge index, layer) of a way point


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are: left middle of nodes and way points, and the way of every edge."""

    places: Mapping[_Key, _Point]
    ways: Sequence[Sequence[_Key]]
    width: float
    height: float


@dataclass(slots=True)
class _Layers:
    """Nodes and way points per layer, in vertical order, and who is joined with whom."""

    order: list[list[_Key]]
    left: dict[_Key, list[_Key]] = field(default_factory=dict)
    right: dict[_Key, list[_Key]] = field(default_factory=dict)


def lay_out(nodes: Sequence[Node], edges: Sequence[Edge]) -> Layout:
    """Place nodes by generation; no two share a place and no edge runs through a node.

    Args:
        nodes: the models; generations without any are skipped.
        edges: each from an earlier to a later generation.

    Returns:
        The layout, with the same index in `ways` as in `edges`.
    """
    generations = sorted({node["generation"] for node in nodes})
    layer = {node["id"]: generations.index(node["generation"]) for node in nodes}
    layers = _Layers([[] for _ in generations])
    for node in nodes:
        layers.order[layer[node["id"]]].append(node["id"])
    ways: list[list[_Key]] = []
    for i, edge in enumerate(edges):
        first, last = layer[edge["parent"]], layer[edge["child"]]
        way: list[_Key] = [edge["parent"], *((i, at) for at in range(first + 1, last))]
        for at, key in enumerate(way[1:], first + 1):
            layers.order[at].append(key)
        way.append(edge["child"])
        ways.append(way)
        for one, other in pairwise(way):
            layers.right.setdefault(one, []).append(other)
            layers.left.setdefault(other, []).append(one)
    _untangle(layers)
    heights = _relax(layers)
    top = min(heights.values(), default=0.0) - _BOX_HEIGHT / 2 - _MARGIN
    bottom = max(heights.values(), default=0.0) + _BOX_HEIGHT / 2 + _MARGIN
    pitch = _BOX_WIDTH + _GAP
    places = {
        key: (_MARGIN + at * pitch, heights[key] - top)
        for at, keys in enumerate(layers.order)
        for key in keys
    }
    width = 2 * _MARGIN + len(layers.order) * pitch - _GAP
    return Layout(places, ways, max(width, 1.0), bottom - top)


def _untangle(layers: _Layers) -> None:
    """Order each layer by the mean rank of its neighbours, sweeping to and fro."""
    for sweep in range(8):
        forward = sweep % 2 == 0
        joined = layers.left if forward else layers.right
        for keys in layers.order if forward else reversed(layers.order):
            rank = {key: i for column in layers.order for i, key in enumerate(column)}
            wish = {key: _mean([rank[k] for k in joined.get(key, [])], rank[key]) for key in keys}
            keys.sort(key=wish.__getitem__)


def _relax(layers: _Layers) -> dict[_Key, float]:
    """Return heights close to the mean of the neighbours, with room for each."""
    height = {
        key: (i - (len(keys) - 1) / 2) * 2 * _NODE_ROOM
        for keys in layers.order
        for i, key in enumerate(keys)
    }
    for _ in range(12):
        for keys in layers.order:
            wish = []
            for key in keys:
                near = layers.left.get(key, []) + layers.right.get(key, [])
                wish.append(_mean([height[k] for k in near], height[key]))
            placed: list[float] = []
            lowest = -math.inf
            for key, value in zip(keys, wish, strict=True):
                room = _NODE_ROOM if isinstance(key, str) else _LINE_ROOM
                placed.append(max(value, lowest + room))
                lowest = placed[-1] + room
            shift = _mean([w - p for w, p in zip(wish, placed, strict=True)], 0.0)
            height.update(zip(keys, (p + shift for p in placed), strict=True))
    return height


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def draw_graph(graph: Graph, models: Mapping[str, ModelReport]) -> Markup:
    """Draw the graph.

    Args:
        graph: nodes and edges.
        models: the report of every node, by id.

    Returns:
        The image; an edge weight that finds no free place is left to the tooltip.
    """
    layout = lay_out(graph["nodes"], graph["edges"])
    lines, labels = [], []
    taken: list[_Point] = []
    for edge, way in zip(graph["edges"], layout.ways, strict=True):
        tip = f"{edge['parent']} → {edge['child']}, {edge['kind']}, weight {edge['weight']:g}"
        path, middles = _path([layout.places[key] for key in way])
        lines.append(
            f'<path class="edge" d="{path}" marker-end="url(#arrow)">'
            f"<title>{escape(tip)}</title></path>"
        )
        for x, y in middles:
            if all(abs(x - u) > _LABEL_WIDTH or abs(y - v) > _LABEL_HEIGHT for u, v in taken):
                taken.append((x, y))
                weight = f"{edge['weight']:.2g}"
                labels.append(text(x, y + 3.5, weight, "weight middle"))
                break
    boxes = [_box(node, models[node["id"]], layout.places[node["id"]]) for node in graph["nodes"]]
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="head"/></marker></defs>'
    )
    label = (
        f"Inheritance graph of {len(graph['nodes'])} models and {len(graph['edges'])} edges, "
        "ancestors to the left; the edges are listed in the table below"
    )
    return svg(layout.width, layout.height, label, [arrow, *lines, *boxes, *labels], "graph")


def _path(places: Sequence[_Point]) -> tuple[str, list[_Point]]:
    """Return the way as a path, and points on it where its weight could stand, best first."""
    (x, y), *rest = places
    x += _BOX_WIDTH
    path = f"M{x:.1f} {y:.1f}"
    middles: list[_Point] = []
    for i, (u, v) in enumerate(rest):
        bend = _GAP * 0.5
        path += f"C{x + bend:.1f} {y:.1f} {u - bend:.1f} {v:.1f} {u:.1f} {v:.1f}"
        middles[:0] = [_bezier((x, y), (u, v), bend, t) for t in (0.5, 0.35, 0.65, 0.22, 0.75)]
        x, y = u + _BOX_WIDTH, v
        if i < len(rest) - 1:
            path += f"H{x:.1f}"
    return path, middles


def _bezier(start: _Point, stop: _Point, bend: float, t: float) -> _Point:
    (x, y), (u, v) = start, stop
    a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
    return a * x + b * (x + bend) + c * (u - bend) + d * u, (a + b) * y + (c + d) * v


def _box(node: Node, model: ModelReport, place: _Point) -> str:
    x, y = place
    top = y - _BOX_HEIGHT / 2
    samples = sum(node["samples_per_class"].values())
    tip = (
        f"{node['id']} ({node['role']}), held by {node['owner']}\n"
        f"generation {node['generation']}, trained on {samples} samples, "
        f"{len(node['labels'])} classes\n"
        f"outcome: {model['outcome'].replace('_', ' ')}; forget accuracy "
        f"{number(model['before']['forget_accuracy'])} → "
        f"{number(model['after']['forget_accuracy'])} %"
    )
    outcome = escape(model["outcome"])
    return "".join(
        (
            f'<g class="node {escape(node["role"])} is-{outcome}"><title>{escape(tip)}</title>',
            rect(x, top, _BOX_WIDTH, _BOX_HEIGHT, "box", extra='rx="7"'),
            text(x + 10, top + 18, elide(node["id"], 10), "name"),
            text(x + _BOX_WIDTH - 10, top + 18, _MARKS[model["outcome"]], "sign end"),
            text(x + 10, top + 34, elide(node["owner"], 15), "owner"),
            "</g>",
        )
    )
