"""`disinherit graph tree`: the family of a model as a tree, in the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.text import Text

from disinherit.cli.connection import Connection, connected
from disinherit.cli.graph_sources import SourceArgument, find_graph
from disinherit.cli.lineages import describe
from disinherit.cli.output import Format, FormatOption, print_json, print_rich
from disinherit.common.errors import GraphError
from disinherit.common.graph.lineages import Lineage, children_of, fold_versions
from disinherit.common.text import did_you_mean

EXAMPLES = (
    "Examples:\n\ndisinherit graph tree runs/demo\n\ndisinherit graph tree --root r1 --depth 3"
)


@connected
def tree(
    connection: Connection,
    source: SourceArgument = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="MODEL", help="Only this model and what is below. Repeat."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=0, help="Generations below the roots; all by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print who was derived from whom as a tree.

    A model with several parents is below the first of them, and named with ⤴ below the others.
    """
    graph = find_graph(source, connection)
    models = fold_versions(graph)
    starts = root or [id for id, model in models.items() if not model.parents]
    for id in starts:
        check_model(models, id)
    below = children_of(models)
    if form is Format.JSON:
        print_json([_nested(models, below, id, depth) for id in starts])
        return 0
    print_tree(models, below, starts, depth)
    return 0


def check_model(models: Mapping[str, Lineage], id: str) -> None:
    """Check that a model is there.

    Raises:
        GraphError: if it is not.
    """
    if id not in models:
        raise GraphError(
            f"Expected the id of a model, but got {id!r}, which is unknown."
            f"{did_you_mean(id, models)}"
        )


def print_tree(
    models: Mapping[str, Lineage],
    below: Mapping[str, Sequence[str]],
    starts: Sequence[str],
    depth: int | None = None,
) -> None:
    """Print models with all that were derived from them.

    Args:
        models: of `fold_versions`.
        below: of `children_of`.
        starts: where the trees begin.
        depth: generations below them; `None` for all.
    """
    seen: set[str] = set()
    for id in starts:
        for line in _lines(models, below, id, depth, seen):
            print_rich(line)


def _lines(
    models: Mapping[str, Lineage],
    below: Mapping[str, Sequence[str]],
    start: str,
    depth: int | None,
    seen: set[str],
) -> Iterator[Text]:
    """Yield the lines of one tree; a stack, as families may be thousands of generations deep."""
    waiting = [(start, "", "", 0)]
    while waiting:
        id, before, joint, level = waiting.pop()
        if id in seen:
            yield Text(f"{before}{joint}{id} ⤴")
            continue
        seen.add(id)
        model = models[id]
        yield Text.assemble(f"{before}{joint}{id} ({model.owner}) ", describe(model))
        inner = before + {"├── ": "│   ", "└── ": "    ", "": ""}[joint]
        children = list(below[id])
        if children and level == depth:
            yield Text(f"{inner}└── {len(children)} more below")
            continue
        for child in reversed(children):
            end = child == children[-1]
            waiting.append((child, inner, "└── " if end else "├── ", level + 1))


def _nested(
    models: Mapping[str, Lineage],
    below: Mapping[str, Sequence[str]],
    start: str,
    depth: int | None,
) -> dict[str, object]:
    whole: dict[str, object] = {}
    seen: set[str] = set()
    waiting: list[tuple[str, list[object] | None, int]] = [(start, None, 0)]
    while waiting:
        id, above, level = waiting.pop(0)
        children: list[object] = []
        node: dict[str, object] = {"id": id, "owner": models[id].owner}
        if id not in seen:
            node |= {"current": models[id].current.id, "children": children}
            deeper = below[id] if depth is None or level < depth else []
            waiting += [(child, children, level + 1) for child in deeper]
        seen.add(id)
        if above is None:
            whole = node
        else:
            above.append(node)
    return whole
