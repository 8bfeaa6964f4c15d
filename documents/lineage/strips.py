"""Hundreds of models as strips: a line for each generation, a square for each model."""

from collections.abc import Collection, Sequence

from markupsafe import Markup, escape

from disinherit.documents.standing import ShownEdge, ShownModel, Standing, counted
from disinherit.documents.svg import item, rect, text

_CELL, _PER_LINE, _LEFT, _COUNTS = 15.0, 48, 112.0, 190.0
_MOST = 1500  # squares; beyond that a line has only its counts


def draw_strips(
    models: Sequence[ShownModel], edges: Sequence[ShownEdge], anchors: Collection[str] = ()
) -> Markup:
    """Draw generations as strips of squares, the worst first, with counts at their ends.

    Args:
        models: the models to draw, ancestors first.
        edges: who was derived from whom; a model is one generation below its lowest parent here.
        anchors: ids of models that the page has an anchor `m-ID` for.
    """
    y, body = 18.0, []
    squares = len(models) <= _MOST
    levels = _generations(models, edges)
    longest = min(max(map(len, levels), default=0), _PER_LINE) if squares else 0
    right = _LEFT + max(longest * _CELL, 40.0)
    for index, level in enumerate(levels):
        level.sort(key=lambda one: one.standing.rank)
        lines = -(-len(level) // _PER_LINE) if squares else 1
        high = lines * _CELL + 8
        body.append(text(_LEFT - 10, y + 11, f"generation {index}", "end"))
        counts = "  ".join(f"{n} {one.sign}" for one, n in counted(m.standing for m in level))
        body.append(text(right + 10, y + 11, counts, "value"))
        if squares:
            for i, model in enumerate(level):
                left = _LEFT + (i % _PER_LINE) * _CELL
                top = y + (i // _PER_LINE) * _CELL
                sign = "" if model.standing is Standing.FORGOT else model.standing.sign
                cell = [rect(left, top, _CELL - 2, _CELL - 2, "cell")]
                if sign:
                    cell.append(text(left + _CELL / 2 - 1, top + _CELL - 4.5, sign, "sign middle"))
                body.append(item(model, cell, anchors))
        y += high
    label = f"{len(models)} models by generation, the worst of each first; the tables list them all"
    width = right + _COUNTS
    words = "each square is a model, the worst of its generation first"
    head = text(_LEFT, 10, words if squares else "how many models stand where", "muted")
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="graph strips" role="list" '
        f'aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {y:.0f}" '
        f'width="{width:.0f}" height="{y:.0f}">{head}{"".join(body)}</svg>'
    )


def _generations(
    models: Sequence[ShownModel], edges: Sequence[ShownEdge]
) -> list[list[ShownModel]]:
    """Return the models by generation: those without a parent here are the first."""
    known = {one.id for one in models}
    parents: dict[str, list[str]] = {}
    for edge in edges:
        if edge.parent in known and edge.child in known:
            parents.setdefault(edge.child, []).append(edge.parent)
    level: dict[str, int] = {}
    for one in models:  # ancestors come first
        level[one.id] = 1 + max((level.get(id, 0) for id in parents.get(one.id, ())), default=-1)
    found: list[list[ShownModel]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for one in models:
        found[level[one.id]].append(one)
    return found
