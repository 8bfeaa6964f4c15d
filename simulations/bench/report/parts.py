"""What both pages of a run show: aims, comparisons, reach of the roots, and what is missing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from disinherit.simulations.bench.aims import Judged
from disinherit.simulations.bench.branches import branch_labels, branch_table
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.comparisons import compare, counts
from disinherit.simulations.bench.curves import deep_labels
from disinherit.simulations.bench.glosses import gloss
from disinherit.simulations.bench.joining import suites_of
from disinherit.simulations.bench.markdown import MISSED, NO_FIGURE, TextTable
from disinherit.simulations.bench.means import Side
from disinherit.simulations.bench.reach import MISSED as NOT_FORGOTTEN
from disinherit.simulations.bench.reach import depth_table, prediction_table, predictions
from disinherit.simulations.bench.spread import spread_labels, spread_table

FOLLOWED: tuple[tuple[str, Side, str], ...] = (
    ("forget_accuracy", "value", "forget accuracy, %"),
    ("retain_accuracy", "gap", "retain accuracy, gap to retraining in points"),
    ("js_divergence_forget", "value", "JS divergence to retraining, forgotten, bits"),
)
"""What is followed along generations: metric, side, title."""

PASSED = (
    "All passed: the original models fail the panel, the retrained ones pass, splits are disjoint."
)
MEANS = (
    "Means over seeds ± half the width of the 95% t-interval over seeds; a metric of a case is the "
    "mean over its affected models. The column *retrained* is the exact retraining, which every "
    "figure has to be read against."
)


class PagePart(NamedTuple):
    """A table with its title and an explanation."""

    title: str
    text: str
    table: TextTable


def methods_table(run: Record) -> TextTable:
    """Return what each method does, in one line."""
    rows = [(one["label"], gloss(one)) for one in run["suite"]["methods"]]
    return TextTable(("method", "what it does"), tuple(rows))


def judged_parts(
    run: Record, cells: Sequence[Record], judged: Mapping[str, Sequence[Judged]]
) -> list[PagePart]:
    """Return each method's aims case by case, and how it compares with all others."""
    return [
        part
        for method, found in judged.items()
        for part in (_aims_part(method, found), _against(run, cells, method))
    ]


def _aims_part(method: str, judged: Sequence[Judged]) -> PagePart:
    answers = {True: "yes", False: MISSED, None: NO_FIGURE}
    rows = tuple((one.label, one.aim, one.figure, answers[one.met]) for one in judged)
    return PagePart(
        f"Aims: {method}",
        "Each aim as it was set before the run, the figure, and whether it is met.",
        TextTable(("case", "aim", "figure", "met"), rows, verdicts=3),
    )


def _against(run: Record, cells: Sequence[Record], method: str) -> PagePart:
    labels = dict.fromkeys(cell["label"] for cell in cells)
    others = [m["label"] for m in run["suite"]["methods"] if m["label"] != method]
    rows = tuple(
        (label, *(_closer(cells, label, method, other) for other in others)) for label in labels
    )
    return PagePart(
        f"{method} against every other method",
        f"Metrics of the panel on which {method} is closer to exact retraining : farther "
        f"from it, beyond noise (paired over seeds, 95%). {NO_FIGURE} where it cannot be said: one "
        "seed, or not run.",
        TextTable(("case", *others), rows),
    )


def _closer(cells: Sequence[Record], label: str, method: str, other: str) -> str:
    compared = compare(cells, label, method, other)
    if all(one.difference.half is None for one in compared):
        return NO_FIGURE
    verdicts = counts(compared)
    return f"{verdicts['closer']} : {verdicts['farther']}"


def reach_parts(references: Sequence[Record], cells: Sequence[Record]) -> list[PagePart]:
    """Return how far the roots' Fisher reaches, and whom it hits.

    Before that, how far the references of other seeds are apart, where some were trained.
    """
    parts = [
        PagePart(
            f"Spread of the reference: {label}",
            "Roots that were retrained with other seeds: what is as close to the reference as they "
            "are to each other cannot be told from retraining. Divergences of margins are those of "
            "each from the others.",
            spread_table(references, label),
        )
        for label in spread_labels(references)
    ]
    for label in deep_labels(cells):
        for metric, side, title in FOLLOWED:
            table = depth_table(cells, label, metric, side)
            parts.append(
                PagePart(f"Depth: {label}: {title}", "By derivations below the root.", table)
            )
        if found := predictions(cells, label):
            text = (
                f"Models that name over {NOT_FORGOTTEN:g} points more of what was to be forgotten "
                "than the retrained one did not forget. The AUC is the chance that such a model "
                "has a lower inheritance score than one that did forget: 0.5 is a guess."
            )
            title = f"What the score predicts: {label}"
            parts.append(PagePart(title, text, prediction_table(found)))
    for label in branch_labels(references):
        for metric, side, title in FOLLOWED:
            table = branch_table(references, cells, label, metric, side)
            parts.append(PagePart(f"Roots: {label}: {title}", "By the roots above a model.", table))
    return parts


def finished(run: Record, references: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return how much of a run is done."""
    suites = suites_of(run)
    cases = sum(len(suite["cases"]) for suite in suites)
    expected = sum(len(suite["cases"]) * len(suite["methods"]) for suite in suites)
    return f"{len(references)} of {cases} cases, {len(cells)} of {expected} cells are finished."


def failed_gates(references: Sequence[Record]) -> list[str]:
    """Return the sanity gates that were not passed."""
    return [f"{one['case']}: {reason}" for one in references for reason in one["gates"]]


def missing_notes(cells: Sequence[Record]) -> list[str]:
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
