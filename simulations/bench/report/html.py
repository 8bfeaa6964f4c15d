"""The report of a run as one HTML file: no font, no script and no request to anywhere."""

from collections.abc import Callable, Sequence

import disinherit
from disinherit.documents.limits import PROOF, Limit
from disinherit.documents.pages import environment
from disinherit.documents.verdict import SIGNS
from disinherit.documents.words import count
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import MISSED, NO_FIGURE, cost_table
from disinherit.simulations.bench.means import summarise
from disinherit.simulations.bench.overview import EXPLANATION as OVERVIEW
from disinherit.simulations.bench.overview import overview_table
from disinherit.simulations.bench.report.heat import FIGURES, FULL, case_map, panel_shades, shade
from disinherit.simulations.bench.report.parts import (
    PASSED,
    failed_gates,
    finished,
    judged_parts,
    methods_table,
    missing_notes,
    reach_parts,
)
from disinherit.simulations.bench.report.plots import curve_plots, scatter, times
from disinherit.simulations.bench.report.standings import (
    EXPLANATION,
    aims_matrix,
    judged_methods,
    missed_table,
    verdict,
)
from disinherit.simulations.bench.sample_noise import noise_table

_LIMITS: tuple[Limit, ...] = (
    PROOF,
    (
        "Other sizes.",
        "Figures hold for the networks and data sets of this run, with simulated owners; they do "
        "not say how it goes with much larger ones.",
    ),
    (
        "Chance.",
        "One seed has no interval. Of some twenty metrics that are compared at 95 %, one differs "
        "by chance alone; no correction is made.",
    ),
    (
        "One reference.",
        "Two retrainings with other seeds differ, too: what is as near as that cannot be told from "
        "retraining.",
    ),
    (
        "Time on other machines.",
        "Ratios of a hundred are robust to what else ran on this one; ratios of two are not.",
    ),
)
_KEYS = (0.0, 1.0, 5.0, 20.0, FULL)


def _silent(_: str) -> None:
    """Say nothing."""


def render_html(
    run: Record,
    references: Sequence[Record],
    cells: Sequence[Record],
    say: Callable[[str], None] = _silent,
) -> str:
    """Return the page: aims by method, heat maps, plots, and every case folded.

    Args:
        run: the run's record.
        references: the records of its cases.
        cells: the records of its cells.
        say: told what is being done.
    """
    say("judging aims")
    judged = judged_methods(run, cells)
    gates = failed_gates(references)
    methods = methods_table(run)
    tables = {label: table for label, table in summarise(cells).items() if table}
    kinds = {cell["label"]: cell["granularity"] for cell in cells}
    say("comparing methods")
    compared = judged_parts(run, cells, judged)
    say(f"drawing {count(len(tables), 'kind')} of cases")
    drawn = [(label, scatter(table, label, judged)) for label, table in tables.items()]
    sections = [
        (
            label,
            times(table, label, judged),
            panel_shades(table),
            noise_table(references, cells, label),
            cost_table(table),
        )
        for label, table in tables.items()
    ]
    curves = curve_plots(references, cells)
    reach = reach_parts(references, cells)
    notes = missing_notes(cells)
    contents = [
        ("aims", "Aims by method", bool(judged)),
        ("gaps", "Gaps, method by case", bool(tables)),
        ("methods", "What the methods are", True),
        ("scatter", "Forgetting against keeping", any(plot for _, plot in drawn)),
        ("curves", "Along generations", bool(curves)),
        ("cases", "Case by case", bool(tables)),
        ("judged", "Every aim and comparison", bool(compared)),
        ("reach", "Spread, depth and roots", bool(reach)),
        ("missing", "Not measured", bool(notes)),
        ("run", "Where it was run", True),
    ]
    page = environment("disinherit.simulations.bench.report").get_template("bench.html.j2")
    return page.render(
        kind="Bench report",
        id=run["suite"]["name"],
        version=disinherit.__version__,
        script=None,
        verdict=verdict(judged, gates, cells),
        counts=[],
        limits=_LIMITS,
        contents=[(anchor, name) for anchor, name, shown in contents if shown],
        finished=finished(run, references, cells),
        explanation=EXPLANATION,
        aims=aims_matrix(judged) if judged else None,
        missed_aims=missed_table(judged),
        glosses={row[0]: row[1] for row in methods.rows},
        signs=SIGNS,
        gates=gates,
        passed=PASSED,
        largest=case_map(tables, kinds, FIGURES, "Largest gap of the three"),
        apart=[case_map(tables, kinds, [one], one.title.capitalize()) for one in FIGURES],
        figures=FIGURES,
        keys=[(value, shade(value)) for value in _KEYS],
        overview=(OVERVIEW, overview_table(cells)),
        methods=methods,
        drawn=[(i, label, plot) for i, (label, plot) in enumerate(drawn, 1) if plot is not None],
        curves=curves,
        compared=compared,
        reach=reach,
        sections=sections,
        notes=notes,
        environment=run["environment"],
        missed=MISSED,
        no_figure=NO_FIGURE,
    )
