"""Hundreds of models as strips: a line for each generation or owner, a square for each model."""

from collections.abc import Collection, Iterable, Sequence

from markupsafe import Markup, escape

from disinherit.common.text import elide
from disinherit.documents.standing import ShownEdge, ShownModel, Standing, counted
from disinherit.documents.svg import item, rect, text

_CELL, _PER_LINE, _LEFT, _COUNTS = 15.0, 48, 112.0, 190.0
_MOST = 1500  # squares; beyond that a line has only its counts


Line = tuple[str, Sequence[ShownModel]]
"""What a line is about, and its models."""


def draw_strips(lines: Sequence[Line], each: str, anchors: Collection[str] = ()) -> Markup:
    """Draw lines as strips of squares, the worst first, with counts at their ends.

    Args:
        lines: by `by_generation` or `by_owner`.
        each: what a line is, in words.
        anchors: ids of models that the page has an anchor `m-ID` for.
    """
    y, body = 18.0, []
    total = sum(len(models) for _, models in lines)
    squares = total <= _MOST
    longest = min(max((len(models) for _, models in lines), default=0), _PER_LINE)
    right = _LEFT + (max(longest * _CELL, 40.0) if squares else 40.0)
    for name, models in lines:
        rows = -(-len(models) // _PER_LINE) if squares else 1
        body.append(text(_LEFT - 10, y + 11, elide(name, 17), "end"))
        counts = ", ".join(f"{n} {one.sign}" for one, n in counted(m.standing for m in models))
        body.append(text(right + 10, y + 11, counts, "value"))
        if squares:
            ordered = sorted(models, key=lambda one: one.standing.rank)
            body += [_square(model, i, y, anchors) for i, model in enumerate(ordered)]
        y += rows * _CELL + 8
    label = f"{total} models by {each}, the worst of each first; the tables list them all"
    width = right + _COUNTS
    words = f"each square is a model, the worst of its {each} first"
    head = text(_LEFT, 10, words if squares else "how many models stand where", "muted")
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="graph strips" '
        f'role="{"list" if squares else "img"}" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width:.0f} {y:.0f}" width="{width:.0f}" height="{y:.0f}">'
        f"{head}{''.join(body)}</svg>"
    )


def _square(model: ShownModel, place: int, y: float, anchors: Collection[str]) -> str:
    left = _LEFT + (place % _PER_LINE) * _CELL
    top = y + (place // _PER_LINE) * _CELL
    cell = [rect(left, top, _CELL - 2, _CELL - 2, "cell")]
    if model.standing is not Standing.FORGOT:
        sign = model.standing.sign
        cell.append(text(left + _CELL / 2 - 1, top + _CELL - 4.5, sign, "sign middle"))
    return item(model, cell, anchors)


def by_owner(models: Sequence[ShownModel]) -> list[Line]:
    """Return the models of each owner, owners with the worst model first."""
    owned: dict[str, list[ShownModel]] = {}
    for one in sorted(models, key=lambda one: one.standing.rank):
        owned.setdefault(one.owner, []).append(one)
    return list(owned.items())


def by_generation(models: Sequence[ShownModel], edges: Iterable[ShownEdge]) -> list[Line]:
    """Return the models of each generation; those without a parent here are the first.

    Args:
        models: the models to draw, ancestors first.
        edges: who was derived from whom; a model is one generation below its lowest parent here.
    """
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
    return [(f"generation {index}", level) for index, level in enumerate(found)]
