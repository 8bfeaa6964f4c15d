"""`disinherit graph discover`: descendants that nobody recorded, found from weights alone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from disinherit.cli.checked import file_to_write
from disinherit.cli.output import (
    Format,
    FormatOption,
    print_json,
    print_line,
    print_rich,
    warn_line,
)
from disinherit.common.errors import DataError
from disinherit.common.files import write_atomic

EXAMPLES = (
    "Examples:\n\n"
    "disinherit graph discover models --base acme/base --out edges.csv\n\n"
    "disinherit graph import models edges.csv --out family.json"
)


def discover_graph(
    folder: Annotated[Path, typer.Argument(help="A folder with safetensors files, or below it.")],
    base: Annotated[
        list[str] | None,
        typer.Option(help="A model that descends from no other here. Repeat."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Weights that the training of a base started from, safetensors."),
    ] = None,
    out: Annotated[
        Path | None,
        file_to_write(
            help="Write an edge list of what has a direction, for graph import (.csv).",
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Find which models descend from which, by their weights alone; nothing is recorded.

    Rounded and pruned copies and averages mostly show from what they were made. Which of two
    fine-tunes is the parent does not show: name the bases. With the weights of the start,
    descendants that were trained for long are found, too.
    """
    # Imported here because numpy takes a tenth of a second, which --help should not.
    from disinherit.families.discovered_edges import edge_list
    from disinherit.families.discovering import discover

    if out is not None and out.suffix.lower() != ".csv":
        raise DataError(f"Expected a file that ends in .csv as --out, but got {str(out)!r}.")
    found = discover(folder, base or [], start)
    if out is not None:
        text, left = edge_list(found)
        write_atomic(out, text.encode())
        for name, reason in left.items():
            warn_line(f"Not in {out.name}: {name}: {reason}")
    if form is Format.JSON:
        print_json(
            {
                "kin": [
                    {
                        "child": kin.child,
                        "parents": dict(kin.parents),
                        "relation": kin.relation.value,
                        "directed": kin.directed,
                        "evidence": kin.evidence,
                        "confidence": kin.confidence,
                    }
                    for kin in found.kin
                ],
                "alone": list(found.alone),
                "unread": dict(found.unread),
            }
        )
        return 0
    table = Table("model", "", "of", "relation", "confidence", "evidence", box=None)
    for kin in found.kin:
        parents = ", ".join(
            name if len(kin.parents) == 1 else f"{name} ({share:.2f})"
            for name, share in kin.parents
        )
        arrow = "from" if kin.directed else "and"
        table.add_row(
            kin.child, arrow, parents, kin.relation.value, f"{kin.confidence:g}", kin.evidence
        )
    print_rich(table)
    if found.alone:
        print_line(f"Related to none: {', '.join(found.alone)}")
    for name, reason in found.unread.items():
        print_line(f"Not read: {name}: {reason}")
    return 0
