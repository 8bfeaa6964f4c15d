"""The report of a run: one self-contained page of HTML, and Markdown for the documentation."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from disinherit.simulations.bench.aims import judge
from disinherit.simulations.bench.branches import branch_labels, branch_table
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.comparisons import compare, counts
from disinherit.simulations.bench.curves import deep_labels, depth_curves, skew_curves
from disinherit.simulations.bench.joining import suites_of
from disinherit.simulations.bench.markdown import (
    NO_FIGURE,
    TextTable,
    cost_table,
    markdown_table,
    panel_table,
)
from disinherit.simulations.bench.means import Side, summarise
from disinherit.simulations.bench.overview import EXPLANATION, overview_table
from disinherit.simulations.bench.plots import curves, heat_map, pareto, times
from disinherit.simulations.bench.reach import MISSED, depth_table, prediction_table, predictions
from disinherit.simulations.bench.spread import spread_labels, spread_table

_FOLLOWED: tuple[tuple[str, Side, str], ...] = (
    ("forget_accuracy", "value", "forget accuracy, %"),
    ("retain_accuracy", "gap", "retain accuracy, gap to retraining in points"),
    ("js_divergence_forget", "value", "JS divergence to retraining, forgotten, bits"),
)


def render_html(run: Record, references: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return the page: gates, tables, and plots as inline SVG."""
    tables = summarise(cells)
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filled = {label: table for label, table in tables.items() if table}
    return environment.get_template("bench.html.j2").render(
        name=run["suite"]["name"],
        environment=run["environment"],
        counts=_counts(run, references, cells),
        gates=_gates(references),
        judged=[("Overview", EXPLANATION, overview_table(cells)), *_judged(run, cells)],
        notes=_notes(cells),
        overview=[
            ("Forgetting against keeping", Markup(pareto(filled))),
            ("Time", Markup(times(filled))),
            *((title, Markup(plot)) for title, plot in _curve_plots(references, cells)),
        ],
        reach=_reach(references, cells),
        sections=[
            (label, panel_table(table), cost_table(table), Markup(heat_map(table, label)))
            for label, table in filled.items()
        ],
    )


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
    counts = _counts(run, references, cells)
    parts = [
        f"# Results: {'suite' if len(names) == 1 else 'suites'} {_listed(names)}",
        *([f"**{note}**"] if note else []),
        f"Made by {_listed(commands)}. {counts}",
        "Means over seeds ± half the width of the 95% t-interval over seeds; a metric of a case is "
        "the mean over its affected models. The column *retrained* is the exact retraining, which "
        "every figure has to be read against.",
        "## Overview",
        EXPLANATION,
        markdown_table(overview_table(cells)),
        "## Where it was run",
        markdown_table(
            TextTable(("what", "value"), tuple((k, str(v)) for k, v in run["environment"].items()))
        ),
        "## Sanity gates",
        "\n".join(f"- {reason}" for reason in _gates(references))
        or "All passed: the original models fail the panel, the retrained ones pass, splits are "
        "disjoint.",
    ]
    for title, text, judged in _judged(run, cells):
        parts += [f"## {title}", text, markdown_table(judged)]
    for title, text, reached in _reach(references, cells):
        parts += [f"## {title}", text, markdown_table(reached)]
    for label, table in summarise(cells).items():
        if table:
            parts += [f"## {label}", *map(markdown_table, (panel_table(table), cost_table(table)))]
    notes = _notes(cells)
    if notes:
        parts += ["## Not measured, and why", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _judged(run: Record, cells: Sequence[Record]) -> list[tuple[str, str, TextTable]]:
    """Return what comes of the suite's aims: title, explanation, table."""
    declared = run["suite"].get("aims")
    return [
        part
        for method in (declared["methods"] if declared else ())
        for part in _judged_method(run, cells, method, declared["rival"])
    ]


def _judged_method(
    run: Record, cells: Sequence[Record], method: str, rival: str
) -> list[tuple[str, str, TextTable]]:
    answers = {True: "yes", False: "**no**", None: NO_FIGURE}
    rows = tuple(
        (one.label, one.aim, one.figure, answers[one.met]) for one in judge(cells, method, rival)
    )
    labels = list(dict.fromkeys(cell["label"] for cell in cells))
    others = [m["label"] for m in run["suite"]["methods"] if m["label"] != method]
    against = []
    for label in labels:
        line = [label]
        for other in others:
            compared = compare(cells, label, method, other)
            verdicts = counts(compared)
            line.append(f"{verdicts['closer']} : {verdicts['farther']}" if compared else NO_FIGURE)
        against.append(tuple(line))
    return [
        (
            f"Aims: {method}",
            "Each aim as it was set before the run, the figure, and whether it is met.",
            TextTable(("case", "aim", "figure", "met"), rows),
        ),
        (
            f"{method} against every other method",
            f"Metrics of the panel on which {method} is closer to exact retraining : farther "
            "from it, beyond noise (paired over seeds, 95%).",
            TextTable(("case", *others), tuple(against)),
        ),
    ]


def _reach(
    references: Sequence[Record], cells: Sequence[Record]
) -> list[tuple[str, str, TextTable]]:
    """Return how far the roots' Fisher reaches, and whom it hits: title, explanation, table.

    Before that, how far the references of other seeds are apart, where some were trained.
    """
    parts = [
        (
            f"Spread of the reference: {label}",
            "Roots that were retrained with other seeds: what is as close to the reference as they "
            "are to each other cannot be told from retraining. Divergences of margins are those of "
            "each from the others.",
            spread_table(references, label),
        )
        for label in spread_labels(references)
    ]
    for label in deep_labels(cells):
        for metric, side, title in _FOLLOWED:
            table = depth_table(cells, label, metric, side)
            parts.append((f"Depth: {label}: {title}", "By derivations below the root.", table))
        if found := predictions(cells, label):
            text = (
                f"Models that name over {MISSED:g} points more of what was to be forgotten than "
                "the retrained one did not forget. The AUC is the chance that such a model has a "
                "lower inheritance score than one that did forget: 0.5 is a guess."
            )
            parts.append((f"What the score predicts: {label}", text, prediction_table(found)))
    for label in branch_labels(references):
        for metric, side, title in _FOLLOWED:
            table = branch_table(references, cells, label, metric, side)
            parts.append((f"Roots: {label}: {title}", "By the roots above a model.", table))
    return parts


def _curve_plots(references: Sequence[Record], cells: Sequence[Record]) -> list[tuple[str, str]]:
    plots = []
    for label in deep_labels(cells):
        panels = [
            (title, found)
            for metric, side, title in _FOLLOWED
            if (found := depth_curves(cells, label, metric, side))
        ]
        plots.append((f"Depth: {label}", curves(panels, "derivations below the root")))
    panels = [
        (title, found)
        for metric, side, title in _FOLLOWED
        if (found := skew_curves(cells, references, metric, side))
    ]
    if panels:
        skew = curves(panels, "concentration of the Dirichlet partition", logarithmic=True)
        plots.append(("Skew", skew))
    return plots


def _counts(run: Record, references: Sequence[Record], cells: Sequence[Record]) -> str:
    suites = suites_of(run)
    cases = sum(len(suite["cases"]) for suite in suites)
    expected = sum(len(suite["cases"]) * len(suite["methods"]) for suite in suites)
    return f"{len(references)} of {cases} cases, {len(cells)} of {expected} cells are finished."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _gates(references: Sequence[Record]) -> list[str]:
    return [f"{one['case']}: {reason}" for one in references for reason in one["gates"]]


def _notes(cells: Sequence[Record]) -> list[str]:
    """Return why figures are missing, each reason once with the cases and metrics it is for."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell["not_applicable"]:
            reason = f"{cell['method']}: {cell['not_applicable']}"
            found.setdefault(reason, {})[cell["label"]] = None
            continue
        for model in cell["models"].values():
            for metric, entry in model["metrics"].items():
                if entry["value"] is None:
                    reason = f"{metric}: {entry['reason']}"
                    found.setdefault(reason, {})[cell["label"]] = None
    return [f"{reason} ({'; '.join(labels)})" for reason, labels in found.items()]
