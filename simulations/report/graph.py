"""The inheritance graph as SVG: generations left to right, long edges routed between the nodes."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from disinherit.common.graph.layout import Layout, lay_out
from disinherit.documents.svg import elide, rect, svg, text
from disinherit.documents.words import number
from disinherit.simulations.report.document import Graph, ModelFigures, Node

_BOX_WIDTH, _BOX_HEIGHT, _GAP, _ROW = 124.0, 44.0, 84.0, 60.0
_LABEL_WIDTH, _LABEL_HEIGHT, _MARGIN = 30.0, 14.0, 8.0
_MARKS = {
    "applied": "✓",
    "already_applied": "✓",
    "ineffective": "!",
    "not_reached": "!",
    "harmful": "!",
    "failed": "✕",
    "pending": "…",
    "untouched": "",
}

_Point = tuple[float, float]


def draw_graph(graph: Graph, models: Mapping[str, ModelFigures]) -> Markup:
    """Draw the graph.

    Args:
        graph: nodes and edges.
        models: the report of every node, by id.

    Returns:
        The image; an edge weight that finds no free place is left to the tooltip.
    """
    layout = _lay_out(graph)
    places = {
        key: (_MARGIN + x * (_BOX_WIDTH + _GAP), _MARGIN + _BOX_HEIGHT / 2 + y * _ROW)
        for key, (x, y) in layout.places.items()
    }
    lines, labels = [], []
    taken: list[_Point] = []
    for edge, way in zip(graph["edges"], layout.ways, strict=True):
        tip = f"{edge['parent']} → {edge['child']}, {edge['kind']}, weight {edge['weight']:g}"
        path, middles = _path([places[key] for key in way])
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
    boxes = [_box(node, models[node["id"]], places[node["id"]]) for node in graph["nodes"]]
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="head"/></marker></defs>'
    )
    label = (
        f"Inheritance graph of {len(graph['nodes'])} models and {len(graph['edges'])} edges, "
        "ancestors to the left; the edges are listed in the table below"
    )
    width = max((x for x, _ in places.values()), default=0.0) + _BOX_WIDTH + _MARGIN
    height = 2 * _MARGIN + _BOX_HEIGHT + layout.rows * _ROW
    return svg(width, height, label, [arrow, *lines, *boxes, *labels], "graph")


def _lay_out(graph: Graph) -> Layout:
    """Place the nodes by generation; generations without any are skipped."""
    generations: dict[int, list[str]] = {}
    for node in sorted(graph["nodes"], key=lambda node: node["generation"]):
        generations.setdefault(node["generation"], []).append(node["id"])
    edges = [(edge["parent"], edge["child"]) for edge in graph["edges"]]
    return lay_out(list(generations.values()), edges)


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


def _box(node: Node, model: ModelFigures, place: _Point) -> str:
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
