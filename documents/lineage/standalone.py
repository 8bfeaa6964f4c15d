"""An inheritance graph as an SVG file that needs no page."""

from collections.abc import Collection

from disinherit.common.errors import GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelRecord, ModelStatus
from disinherit.common.text import did_you_mean
from disinherit.documents.lineage.drawing import draw_lineage
from disinherit.documents.pages import environment
from disinherit.documents.standing import Role, ShownEdge, ShownModel, Standing

_NEAR = 2


def draw_file(
    graph: InheritanceGraph,
    roots: Collection[str] = (),
    *,
    around: str = "",
    depth: int | None = None,
    whole: bool = False,
) -> str:
    """Draw a graph as a file.

    Args:
        graph: the graph.
        roots: roots of a request; without any, no model is affected or untouched.
        around: only ancestors and descendants of this model; `""` for all models.
        depth: only so many steps from `around`; 2 by default.
        whole: whether untouched models are drawn even where it is crowded.

    Raises:
        GraphError: if a model is unknown.
    """
    affected = {*graph.affected(roots)} if roots else {record.id for record in graph.models()}
    inside = _near(graph, around, _NEAR if depth is None else depth) if around else None
    models = [
        _shown(graph, record, roots, affected)
        for record in graph.models()
        if inside is None or record.id in inside
    ]
    edges = [ShownEdge(e.parent, e.child, str(e.kind), e.weight) for e in graph.edges()]
    image, left_out = draw_lineage(models, edges, whole=whole)
    return environment().get_template("graph.svg.j2").render(image=image, left_out=left_out)


def _shown(
    graph: InheritanceGraph, record: ModelRecord, roots: Collection[str], affected: Collection[str]
) -> ShownModel:
    role: Role = "root" if record.id in roots else "affected"
    if record.id not in affected:
        role = "untouched"
    made = [e.child for e in graph.children(record.id) if e.kind is InheritanceKind.UNLEARNED]
    if record.status is ModelStatus.SUPERSEDED and made:
        return ShownModel(record.id, record.owner, role, Standing.FORGOT, f"became {made[-1]}")
    return ShownModel(record.id, record.owner, role, Standing.LEFT, record.status.value)


def _near(graph: InheritanceGraph, model: str, depth: int) -> set[str]:
    """Return a model with its ancestors and descendants up to so many steps away."""
    if model not in graph:
        ids = [record.id for record in graph.models()]
        meant = did_you_mean(model, ids)
        raise GraphError(f"Expected a model of the graph, but got {model!r}.{meant}")
    found = {model}
    for up in (True, False):
        edge = {model}
        for _ in range(depth):
            edge = {
                one.parent if up else one.child
                for id in edge
                for one in (graph.parents(id) if up else graph.children(id))
            }
            found |= edge
    return found
