"""The report of a run as Markdown, for the documentation."""

from collections.abc import Sequence

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.joining import suites_of
from disinherit.simulations.bench.markdown import (
    TextTable,
    cost_table,
    markdown_table,
    panel_table,
    quoted,
)
from disinherit.simulations.bench.means import summarise
from disinherit.simulations.bench.overview import EXPLANATION as OVERVIEW
from disinherit.simulations.bench.overview import overview_table
from disinherit.simulations.bench.report.parts import (
    MEANS,
    PASSED,
    failed_gates,
    finished,
    judged_parts,
    methods_table,
    missing_notes,
    reach_parts,
)
from disinherit.simulations.bench.report.standings import (
    EXPLANATION,
    aims_table,
    judged_methods,
    missed_table,
)
from disinherit.simulations.bench.sample_noise import noise_table


def render_markdown(
    run: Record, references: Sequence[Record], cells: Sequence[Record], note: str = ""
) -> str:
    """Return the tables, what they rest on, and the command that makes them again.

    Args:
        run: the run's record.
        references: the records of its cases.
        cells: the records of its cells.
        note: what has to be known first of these figures; `""` for nothing.
    """
    names = [suite["name"] for suite in suites_of(run)]
    commands = [f"disinherit bench run {name} --out DIR" for name in names]
    commands.append(" ".join(["disinherit bench report", *(["DIR"] * len(names))]))
    judged = judged_methods(run, cells)
    parts = [
        f"# Results: {'suite' if len(names) == 1 else 'suites'} {_listed(names)}",
        *([quoted(note)] if note else []),
        f"Made by {_listed(commands)}. {finished(run, references, cells)}",
        MEANS,
    ]
    if judged:
        parts += ["## Aims by method", EXPLANATION, markdown_table(aims_table(judged))]
        if (missed := missed_table(judged)).rows:
            parts += ["Where aims are missed:", markdown_table(missed)]
    parts += [
        "## Overview",
        OVERVIEW,
        markdown_table(overview_table(cells)),
        *run_sections(run, references),
    ]
    for title, text, table in judged_parts(run, cells, judged):
        parts += [f"## {title}", text, markdown_table(table)]
    for title, text, table in reach_parts(references, cells):
        parts += [f"## {title}", text, markdown_table(table)]
    for label, figures in summarise(cells).items():
        if figures:
            noise = noise_table(references, cells, label)
            tables = [panel_table(figures), *([noise] if noise.rows else []), cost_table(figures)]
            parts += [f"## {label}", *map(markdown_table, tables)]
    notes = missing_notes(cells)
    if notes:
        parts += ["## Not measured, and why", "\n".join(f"- {one}" for one in notes)]
    return "\n\n".join(parts) + "\n"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def run_sections(run: Record, references: Sequence[Record]) -> list[str]:
    """Return what each method does, where the run was made, and the gates that were not passed.

    Args:
        run: the run's record.
        references: the records of its cases.
    """
    return [
        "## Methods",
        markdown_table(methods_table(run)),
        "## Where it was run",
        markdown_table(
            TextTable(("what", "value"), tuple((k, str(v)) for k, v in run["environment"].items()))
        ),
        "## Sanity gates",
        "\n".join(f"- {reason}" for reason in failed_gates(references)) or PASSED,
    ]
