"""Elements of SVG as strings; colours come from the page's style sheet by class name.

Every function escapes what it is given and returns `Markup`, so a template does not escape twice.
Coordinates are in pixels at natural size.
"""

from collections.abc import Collection, Iterable, Sequence

from markupsafe import Markup, escape

from disinherit.documents.standing import ShownModel


def svg(width: float, height: float, label: str, body: Sequence[str], css: str) -> Markup:
    """Wrap `body` (safe SVG) as an image of `width` by `height` with a label of what it shows."""
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{escape(css)}" role="img" '
        f'aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">{"".join(body)}</svg>'
    )


_WIDE, _NARROW = "mwMW@%—…✓✕", "iljftI.,:;|!'() "
_EM = 0.68
"""Width of a bold character beside its height, in the widest of the fonts that pages name."""


def text(
    x: float, y: float, value: str, css: str = "", *, rotate: int = 0, room: float = 0.0
) -> str:
    """Return a text element whose baseline starts at (x, y), turned by `rotate` degrees.

    Args:
        x: where it starts.
        y: where its baseline is.
        value: the text.
        css: its classes.
        rotate: degrees.
        room: pixels that it may take: it is narrowed where some fonts would take more; 0 for any.
    """
    turn = f' transform="rotate({rotate} {x:.1f} {y:.1f})"' if rotate else ""
    if room and _width(value) > room:
        turn += f' textLength="{room:.0f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{escape(css)}"{turn}>{escape(value)}</text>'


def _width(value: str, height: float = 11.0) -> float:
    """Return about how wide a bold text is, in pixels.

    Example:
        >>> _width("illi") < _width("anna") < _width("mwmw")
        True
    """
    parts = (1.5 if one in _WIDE else 0.6 if one in _NARROW else 1.0 for one in value)
    return _EM * height * sum(parts)


def rect(
    x: float, y: float, width: float, height: float, css: str, title: str = "", extra: str = ""
) -> str:
    """Return a rectangle, with a tooltip if `title` is given; `extra` are safe attributes."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
        f'class="{escape(css)}" {extra}>{inner}</rect>'
    )


def line(x: float, y: float, u: float, v: float, css: str) -> str:
    """Return a straight line from (x, y) to (u, v)."""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" class="{css}"/>'


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the data of a path that joins points, for the attribute `d`."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def item(model: ShownModel, body: Iterable[str], anchors: Collection[str]) -> str:
    """Return a model of a picture as an item of its list, and as a link if the page has its anchor.

    Args:
        model: the model.
        body: its safe SVG.
        anchors: ids of models with an anchor.
    """
    words = escape(model.words)
    inner = f"<title>{words}</title>{''.join(body)}"
    if model.id in anchors:
        inner = f'<a href="#m-{escape(model.id)}" aria-label="{words}">{inner}</a>'
    return f'<g class="node {escape(model.role)} is-{model.standing}" role="listitem">{inner}</g>'
