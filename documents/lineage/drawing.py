"""The inheritance graph as SVG: generations from left to right, wrapped where they are many.

Every model is a link to what the page says of it, and an item of a list for those who do not see
the picture.  What does not fit on a page is drawn as strips, by `strips`.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from disinherit.common.graph.layout import Key, lay_out
from disinherit.common.text import elide
from disinherit.documents.lineage.folding import CROWDED, MOST_BOXES, Box, Folded, fold
from disinherit.documents.lineage.strips import by_generation, by_owner, draw_strips
from disinherit.documents.standing import ShownEdge, ShownModel, counted
from disinherit.documents.svg import item, rect, text

_COLUMNS, _HIGHEST = 6, 2400.0  # of a picture that can be read on a page
_WIDTH, _HEIGHT, _ROW, _MARGIN = 124.0, 44.0, 60.0, 8.0
_GAP, _NARROW_GAP, _BETWEEN = 84.0, 52.0, 26.0
_LABEL_WIDTH, _LABEL_HEIGHT = 30.0, 14.0
_CELL, _PER_LINE, _MOST_CELLS = 16.0, 7, 84

_Point = tuple[float, float]


def draw_lineage(
    models: Sequence[ShownModel],
    edges: Sequence[ShownEdge],
    anchors: Collection[str] = (),
    *,
    whole: bool = False,
) -> tuple[Markup, str]:
    """Draw who inherits from whom.

    Args:
        models: all models, ancestors first.
        edges: who was derived from whom.
        anchors: ids of models that the page has an anchor `m-ID` for.
        whole: whether untouched models are drawn even where it is crowded.

    Returns:
        The image, and a sentence on what it leaves out (`""` for nothing).
    """
    folded = fold(models, edges, whole=whole)
    bands = [
        folded.generations[i : i + _COLUMNS] for i in range(0, len(folded.generations), _COLUMNS)
    ]
    if len(folded.boxes) <= MOST_BOXES:
        drawn = _Drawing(folded, frozenset(anchors), columns=min(len(folded.generations), _COLUMNS))
        for band in bands:
            drawn.add(band)
        if drawn.bottom <= _HIGHEST:
            return drawn.image(len(models), len(edges)), _left_out(folded)
    kept = {one.id for box in folded.boxes.values() for one in box.models}
    shown = [one for one in models if one.id in kept]
    strips = draw_strips(by_generation(shown, edges), "generation", anchors)
    return strips, _left_out(folded, strips=True)


def draw_owners(models: Sequence[ShownModel], anchors: Collection[str] = ()) -> Markup | None:
    """Draw the affected models of each owner; `None` where there are too few to need it.

    Args:
        models: all models.
        anchors: as for `draw_lineage`.
    """
    affected = [one for one in models if one.role != "untouched"]
    owners = by_owner(affected)
    if len(affected) <= CROWDED or not 1 < len(owners) <= MOST_BOXES:
        return None
    return draw_strips(owners, "owner", anchors)


def _left_out(folded: Folded, *, strips: bool = False) -> str:
    parts = []
    if folded.untouched:
        parts.append(f"{_models(folded.untouched, 'untouched model')} not drawn")
    if folded.versions:
        parts.append(f"{_models(folded.versions, 'version')} made later drawn with the first one")
    if folded.dropped and not strips:
        edges = "1 edge" if folded.dropped == 1 else f"{folded.dropped} edges"
        parts.append(f"{edges} left out where a longer way shows the same descent")
    if strips:
        parts.append("there are too many models for boxes and lines: each is a square")
    return "; ".join(parts)


def _models(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


class _Drawing:
    """Boxes and lines, band below band."""

    def __init__(self, folded: Folded, anchors: frozenset[str], columns: int) -> None:
        self._folded = folded
        self._anchors = anchors
        self._gap = _GAP if columns <= 5 else _NARROW_GAP  # what a page is wide
        self._crowded = len(folded.boxes) > CROWDED
        self._lines: list[str] = []
        self._labels: list[str] = []
        self._boxes: list[str] = []
        self._taken: list[_Point] = []
        self._right = 0.0
        self.bottom = 0.0

    def add(self, generations: Sequence[Sequence[str]]) -> None:
        """Draw some generations below what is drawn already."""
        here = [key for keys in generations for key in keys]
        inside = frozenset(here)
        inner = [edge for edge in self._folded.edges if inside.issuperset(edge)]
        heights = {key: _height(self._folded.boxes[key]) for key in here}
        layout = lay_out(
            generations,
            inner,
            {key: (high + _ROW - _HEIGHT) / _ROW for key, high in heights.items()},
        )
        top = self.bottom + (_BETWEEN if self.bottom else _MARGIN)
        middle = {
            key: (_MARGIN + x * (_WIDTH + self._gap), y * _ROW)
            for key, (x, y) in layout.places.items()
        }
        highest = min(
            (y - heights[key] / 2 for key, (_, y) in middle.items() if key in heights), default=0.0
        )
        highest = min([highest, *(y for _, y in middle.values())])
        places: dict[Key, _Point] = {key: (x, y - highest + top) for key, (x, y) in middle.items()}
        for edge, way in zip(inner, layout.ways, strict=True):
            self._line(edge, [places[key] for key in way])
        arrivals = _coming_from_outside(self._folded.edges, inside)
        for key in here:
            x, y = places[key]
            self._box(self._folded.boxes[key], x, y, heights[key])
            if parents := arrivals.get(key):
                words = "from " + ", ".join(elide(one, 9) for one in parents[:2])
                words += f" +{len(parents) - 2}" if len(parents) > 2 else ""
                self._labels.append(text(x, y - heights[key] / 2 - 3, words, "weight"))
            self._right = max(self._right, x + _WIDTH)
            self.bottom = max(self.bottom, y + heights[key] / 2)
        self.bottom = max([self.bottom, *(y for _, y in places.values())])

    def image(self, models: int, edges: int) -> Markup:
        """Return what was drawn, for a page that has its marker of arrows once."""
        label = (
            f"Inheritance graph of {models} models and {edges} edges, ancestors to the left; "
            "the tables list them all"
        )
        arrow = (
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="head"/></marker></defs>'
        )
        wide, high = self._right + _MARGIN, self.bottom + _MARGIN
        return Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" class="graph" role="list" '
            f'aria-label="{escape(label)}" viewBox="0 0 {wide:.0f} {high:.0f}" '
            f'width="{wide:.0f}" height="{high:.0f}">{arrow}<g aria-hidden="true">'
            f"{''.join(self._lines)}</g>{''.join(self._boxes)}"
            f'<g aria-hidden="true">{"".join(self._labels)}</g></svg>'
        )

    def _line(self, ends: tuple[str, str], places: Sequence[_Point]) -> None:
        edge = self._folded.edges[ends]
        tip = f"{ends[0]} → {ends[1]}"
        if edge is not None:
            tip += f", {edge.kind}, weight {edge.weight:g}"
        path, middles = _path(places, self._gap)
        self._lines.append(
            f'<path class="edge" d="{path}" marker-end="url(#arrow)">'
            f"<title>{escape(tip)}</title></path>"
        )
        if edge is None or self._crowded:
            return
        for x, y in middles:
            if all(abs(x - u) > _LABEL_WIDTH or abs(y - v) > _LABEL_HEIGHT for u, v in self._taken):
                self._taken.append((x, y))
                self._labels.append(text(x, y + 3.5, f"{edge.weight:.2g}", "weight middle"))
                break

    def _box(self, box: Box, x: float, y: float, high: float) -> None:
        top = y - high / 2
        if box.kind == "model":
            (model,) = box.models
            inner = (
                rect(x, top, _WIDTH, high, "box", extra='rx="7"'),
                text(x + 10, top + 18, elide(model.id, 12), "name", room=_WIDTH - 32),
                text(x + _WIDTH - 10, top + 18, model.standing.sign, "sign end"),
                text(x + 10, top + 34, elide(model.owner, 17), "owner", room=_WIDTH - 18),
            )
            self._boxes.append(item(model, inner, self._anchors))
            return
        counts = ", ".join(f"{n} {one.sign}" for one, n in counted(m.standing for m in box.models))
        frame = (
            rect(x, top, _WIDTH, high, "box", extra='rx="7"'),
            text(x + 8, top + 15, elide(box.title, 20), "group", room=_WIDTH - 14),
            text(x + 8, top + 28, elide(counts, 32), "owner", room=_WIDTH - 14),
        )
        self._boxes.append(
            f'<g class="node many" role="listitem"><title>{escape(box.title)}: {escape(counts)}'
            f"</title>{''.join(frame)}</g>"
        )
        for i, model in enumerate(box.models[:_MOST_CELLS]):
            left = x + 6 + (i % _PER_LINE) * _CELL
            down = top + 34 + (i // _PER_LINE) * _CELL
            cell = (
                rect(left, down, _CELL - 2, _CELL - 2, "cell"),
                text(left + _CELL / 2 - 1, down + _CELL - 5, model.standing.sign, "sign middle"),
            )
            self._boxes.append(item(model, cell, self._anchors))
        if len(box.models) > _MOST_CELLS:
            more = f"and {len(box.models) - _MOST_CELLS} more"
            self._boxes.append(text(x + 8, top + high - 6, more, "owner"))


def _height(box: Box) -> float:
    if box.kind == "model":
        return _HEIGHT
    lines = -(-min(len(box.models), _MOST_CELLS) // _PER_LINE)
    return 38.0 + lines * _CELL + (12.0 if len(box.models) > _MOST_CELLS else 0.0)


def _coming_from_outside(
    edges: Mapping[tuple[str, str], ShownEdge | None], here: Collection[str]
) -> dict[str, list[str]]:
    """Return the parents in earlier bands of the boxes of one band."""
    found: dict[str, list[str]] = {}
    for parent, child in edges:
        if child in here and parent not in here:
            found.setdefault(child, []).append(parent)
    return found


def _path(places: Sequence[_Point], gap: float) -> tuple[str, list[_Point]]:
    """Return the way as a path, and points on it where its weight could stand, best first."""
    middles: list[_Point] = []
    x, y = places[0][0] + _WIDTH, places[0][1]
    path = f"M{x:.1f} {y:.1f}"
    bend = gap * 0.5
    for i, (_, (u, v)) in enumerate(pairwise(places)):
        path += f"C{x + bend:.1f} {y:.1f} {u - bend:.1f} {v:.1f} {u:.1f} {v:.1f}"
        middles[:0] = [_bezier((x, y), (u, v), bend, t) for t in (0.5, 0.35, 0.65, 0.22, 0.75)]
        x, y = u + _WIDTH, v
        if i < len(places) - 2:
            path += f"H{x:.1f}"
    return path, middles


def _bezier(start: _Point, stop: _Point, bend: float, t: float) -> _Point:
    (x, y), (u, v) = start, stop
    a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
    return a * x + b * (x + bend) + c * (u - bend) + d * u, (a + b) * y + (c + d) * v
