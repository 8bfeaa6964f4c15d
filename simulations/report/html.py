"""The report as one HTML file: no script, no font, no request to anywhere.

`charts` and `graph` draw, `verdict` judges, the templates lay out; this module
only gathers what they need.  Everything from the report is escaped: by jinja2 in the templates, by
the drawing functions in the images.
"""

from typing import TypedDict

from markupsafe import Markup

from disinherit.documents.charts import (
    Bar,
    confusion_map,
    grouped_bars,
    heat_grid,
    row_strip,
    time_bars,
)
from disinherit.documents.pages import environment
from disinherit.documents.words import number
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import Evaluation, ModelFigures, RunReport
from disinherit.simulations.report.graph import draw_graph
from disinherit.simulations.report.verdict import (
    NULL_NOTE,
    REFERENCE_NOTE,
    TOLERANCE,
    AccuracyKey,
    describe_speedup,
    gap,
    has_forgotten,
    is_done,
    judge,
    reference_of,
    scope_note,
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
    pages = environment("disinherit.simulations.report")
    pages.globals.update(
        gap=gap, reference_of=reference_of, has_forgotten=has_forgotten, is_done=is_done
    )
    models = {model["id"]: model for model in report["models"]}
    labels = {node["id"]: node["labels"] for node in report["graph"]["nodes"]}
    return pages.get_template("report.html.j2").render(
        report=report,
        verdict=judge(report),
        speedup=describe_speedup(report),
        graph=draw_graph(report["graph"], models),
        forget_bars=_bars(report, "forget_accuracy"),
        retain_bars=_bars(report, "retain_accuracy"),
        published=any(model["published"] for model in report["models"]),
        figures={name: _figures(model, labels[name]) for name, model in models.items()},
        opened=_first_root(report),
        times=_times(report),
        breakdown=_breakdown(report),
        tolerance=TOLERANCE,
        scope_note=scope_note(report),
        reference_note=REFERENCE_NOTE,
        null_note=NULL_NOTE,
    )


def _bars(report: RunReport, key: AccuracyKey) -> Markup:
    """Draw one accuracy of every model, before and after and beside its references."""
    groups = []
    for model in report["models"]:
        bars = [Bar("before", "before", model["before"][key])]
        bars.append(Bar("after", "after", model["after"][key]))
        if model["retrained"] is not None:
            bars.append(Bar("retrained", "retrained", model["retrained"][key]))
        if model["published"] is not None:
            bars.append(Bar("published rule", "published", model["published"][key]))
        groups.append((model["id"], bars))
    return grouped_bars(groups, f"{key.replace('_', ' ').capitalize()} per model, in percent")


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
