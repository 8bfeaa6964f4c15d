"""The report as one HTML file: no font and no request to anywhere, a script only for long tables.

`documents` draws and lays out, `verdict` judges; this module only gathers what they need.
Everything from the report is escaped: by jinja2 in the templates, by the drawing functions in the
images.
"""

import math
from itertools import pairwise
from typing import TypedDict

from markupsafe import Markup

from disinherit.documents.charts import (
    Dot,
    confusion_map,
    dot_plot,
    heat_grid,
    histogram,
    row_strip,
    time_bars,
)
from disinherit.documents.limits import limits
from disinherit.documents.lineage.drawing import draw_lineage, draw_owners
from disinherit.documents.lineage.folding import CROWDED
from disinherit.documents.pages import LONG_TABLE, WORST, environment, sorting
from disinherit.documents.standing import ShownEdge, counted
from disinherit.documents.verdict import NOTABLE
from disinherit.documents.words import number
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import Evaluation, ModelFigures, RunReport
from disinherit.simulations.report.readings import (
    TOLERANCE,
    UNFINISHED,
    AccuracyKey,
    affected_models,
    by_standing,
    gap_of,
    hardly_knew,
    has_forgotten,
    is_done,
    reference_of,
    share_of,
    shown_model,
    standing_of,
)
from disinherit.simulations.report.verdict import (
    NULL_NOTE,
    REFERENCE_NOTE,
    describe_speedup,
    judge,
    scope_note,
)

_TITLES: dict[AccuracyKey, str] = {
    "forget_accuracy": "Forget accuracy, %: should come down to the retrained one",
    "retain_accuracy": "Retain accuracy, %: should stay as near as the retrained one",
}
_CONTENTS = (
    ("request", "What happened"),
    ("graph", "Who inherits"),
    ("accuracy", "Accuracies"),
    ("models", "Model by model"),
    ("time", "Time"),
    ("data", "Data"),
)
_OLD_WEIGHTS = (
    "This run kept the weights from before. In a real campaign owners keep them until they destroy "
    "them, and they know what is to be forgotten."
)
_ATTACK = (
    "Whether somebody can tell that the data was once used (membership inference) was not measured "
    "in this run; the benchmark measures it."
)


class _Figures(TypedDict):
    """What is drawn for one model."""

    confusions: list[tuple[str, Markup | None]]
    head: Markup | None
    strips: list[tuple[str, str, Markup]]


def render_html(report: RunReport) -> str:
    """Turn a report into a self-contained HTML page.

    Args:
        report: the content of `report.json`, `schema_version` 1.

    Returns:
        The page.

    Raises:
        DataError: if `report` is not a report.
    """
    check_report(report)
    models = {model["id"]: model for model in report["models"]}
    labels = {node["id"]: node["labels"] for node in report["graph"]["nodes"]}
    owners = {node["id"]: node["owner"] for node in report["graph"]["nodes"]}
    affected = affected_models(report)
    ordered = by_standing(report, report["models"])
    worst = report["models"] if len(ordered) <= LONG_TABLE else ordered[:WORST]
    unfinished = [m for m in by_standing(report, affected) if m["outcome"] in UNFINISHED]
    edges = [
        ShownEdge(e["parent"], e["child"], e["kind"], e["weight"]) for e in report["graph"]["edges"]
    ]
    shown = [shown_model(one) for one in models.values()]
    picture, left_out = draw_lineage(shown, edges, models)
    pages = environment("disinherit.simulations.report")
    return pages.get_template("report.html.j2").render(
        kind="Unlearning report",
        id=report["request"]["id"],
        version=report["disinherit"],
        script=sorting() if len(ordered) > LONG_TABLE else None,
        contents=_CONTENTS,
        limits=limits(_OLD_WEIGHTS, _ATTACK),
        counts=counted(standing_of(model) for model in affected),
        report=report,
        owners=owners,
        verdict=judge(report),
        speedup=describe_speedup(report),
        graph=picture,
        by_owner=draw_owners(shown, models),
        left_out=left_out,
        weights=len(models) <= CROWDED,
        edges=edges,
        plots=[_plot(report, by_standing(report, affected), key) for key in _TITLES],
        judged=len(affected),
        shown=len(affected) if len(affected) <= LONG_TABLE else WORST,
        published=any(model["published"] for model in report["models"]),
        ordered=ordered,
        worst=worst,
        unfinished=unfinished,
        unfinished_words=UNFINISHED,
        long_table=LONG_TABLE,
        figures={model["id"]: _figures(model, labels[model["id"]]) for model in worst},
        opened=_first_root(report),
        times=_times(report),
        breakdown=_breakdown(report),
        tolerance=TOLERANCE,
        scope_note=scope_note(report),
        reference_note=REFERENCE_NOTE,
        null_note=NULL_NOTE,
        share_of=share_of,
        reference_of=reference_of,
        gap_of=gap_of,
        has_forgotten=has_forgotten,
        hardly_knew=hardly_knew,
        standing_of=standing_of,
        is_done=is_done,
    )


def _plot(
    report: RunReport, affected: list[ModelFigures], key: AccuracyKey
) -> tuple[str, Markup, Markup | None]:
    """Return the title of one accuracy, its values for some models, and its gaps for all.

    Of many models, those that are furthest from retraining in it are drawn.
    """
    drawn = affected_models(report)
    if len(affected) > LONG_TABLE:
        drawn = sorted(affected, key=lambda one: -abs(gap_of(one, key) or 0.0))[:WORST]
    lines = []
    for model in drawn:
        dots = [Dot("before", "before", share_of(report, model, "before", key))]
        dots.append(Dot("after", "after", share_of(report, model, "after", key)))
        if model["retrained"] is not None:
            dots.append(Dot("retrained", "retrained", share_of(report, model, "retrained", key)))
        if model["published"] is not None:
            dots.append(
                Dot("published rule", "published", share_of(report, model, "published", key))
            )
        lines.append((model["id"], dots))
    name = key.replace("_", " ").capitalize()
    spread = None
    if len(drawn) < len(affected):
        gaps = [gap for model in affected if (gap := gap_of(model, key)) is not None]
        spread = histogram(_bins(gaps), f"{name}: models by their gap to retraining")
    return _TITLES[key], dot_plot(lines, f"{name} per model, in percent"), spread


def _bins(gaps: list[float]) -> list[tuple[str, int, str]]:
    """Count gaps in percentage points; the middle one is within what is worth a reservation."""
    bins = []
    for low, high in pairwise((-math.inf, -10.0, -NOTABLE, NOTABLE, 10.0, math.inf)):
        # Both ends of the middle one belong to it.
        inside = [
            g
            for g in gaps
            if (
                low <= g <= high
                if low == -NOTABLE
                else low <= g < high
                if low < 0
                else low < g <= high
            )
        ]
        name = f"{low:.0f} to {high:.0f}".replace("-", "\N{MINUS SIGN}")
        name = f"below \N{MINUS SIGN}{-high:.0f}" if low == -math.inf else name
        name = f"above {low:.0f}" if high == math.inf else name
        bins.append((name, len(inside), "after" if low == -NOTABLE else "apart"))
    return bins


def _figures(model: ModelFigures, labels: list[str]) -> _Figures:
    """Draw the confusion matrices of a model, and where its values were selected."""
    evaluations: list[tuple[str, Evaluation | None]] = [("before", model["before"])]
    if model["outcome"] != "untouched":
        evaluations.append(("after", model["after"]))
    confusions = [
        (when, _confusion(model, labels, when, evaluation["confusion"]))
        for when, evaluation in evaluations
        if evaluation is not None
    ]
    head = _head_parameters(model, labels)
    strips = []
    for selection in model["selections"]:
        if selection["parameter"] not in head and selection["rows"]:
            share = number(100 * sum(selection["rows"]) / max(selection["total"], 1), 1, " %")
            label = f"Selected share of {selection['parameter']} per row, {share} in all"
            shares = _fractions(selection["rows"], selection["total"])
            strips.append((selection["parameter"], share, row_strip(shares, label)))
    return {"confusions": confusions, "head": _head(model, labels, head), "strips": strips}


def _confusion(
    model: ModelFigures, labels: list[str], when: str, counts: list[list[int]]
) -> Markup | None:
    if not counts:
        return None
    names = labels if len(labels) == len(counts) else [f"class {i}" for i in range(len(counts))]
    label = f"Confusion matrix of {model['id']} {when} unlearning; rows are true classes"
    return confusion_map(counts, names, model["forgotten"], label)


def _head_parameters(model: ModelFigures, labels: list[str]) -> list[str]:
    """Names of the parameters whose rows are classes: those of the last layer with `C` rows.

    Under parameter-name globs the last layer listed need not be the head, so none is labelled.
    """
    fitting = [s["parameter"] for s in model["selections"] if len(s["rows"]) == len(labels)]
    if model["scope"] not in ("head", "all") or not fitting:
        return []
    layer = fitting[-1].rpartition(".")[0]
    return [name for name in fitting if name.rpartition(".")[0] == layer]


def _head(model: ModelFigures, labels: list[str], head: list[str]) -> Markup | None:
    chosen = [s for s in model["selections"] if s["parameter"] in head]
    if not chosen:
        return None
    shares = [_fractions(s["rows"], s["total"]) for s in chosen]
    values = [[f"{100 * share:.0f}" for share in row] for row in shares]
    label = f"Selected share of the head's rows of {model['id']}, in percent per class"
    return heat_grid(shares, values, head, labels, model["forgotten"], label)


def _fractions(rows: list[int], total: int) -> list[float]:
    """Share of each row that was selected; all rows have `total / len(rows)` values."""
    return [count * len(rows) / total if total else 0.0 for count in rows]


def _first_root(report: RunReport) -> str:
    """Id of the model whose details are open at first."""
    return next((m["id"] for m in report["models"] if m["role"] == "root"), "")


_STEPS = (
    ("fisher", "Fisher information"),
    ("merge", "merge"),
    ("broadcast_and_apply", "broadcast and apply"),
)


def _times(report: RunReport) -> Markup | None:
    """Draw unlearning against retraining, if both were measured."""
    total, retrain = report["timing"]["total"], report["timing"]["retrain_all"]
    if total is None or retrain is None:
        return None
    rows = [
        ("unlearning", [("total", "after", total)]),
        ("replaying the training", [("total", "retrained", retrain)]),
    ]
    return time_bars(rows, "Seconds for unlearning and for replaying the training")


def _breakdown(report: RunReport) -> Markup | None:
    """Draw what the unlearning's time went into."""
    timing = report["timing"]
    seconds = {"fisher": timing["fisher"], "merge": timing["merge"]}
    seconds["broadcast_and_apply"] = timing["broadcast_and_apply"]
    parts = [(name, key, s) for key, name in _STEPS if (s := seconds[key]) is not None]
    if not parts:
        return None
    rest = (timing["total"] or 0.0) - sum(part[2] for part in parts)
    if rest > 0:
        parts.append(("other", "other", rest))
    return time_bars([("unlearning", parts)], "Seconds per step of the unlearning")
