"""The report as tables for the terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from disinherit.documents.pages import LONG_TABLE, WORST
from disinherit.documents.words import number, signed
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.simulations.report.readings import (
    UNFINISHED,
    AccuracyKey,
    by_standing,
    gap_of,
    has_forgotten,
    is_done,
    reference_of,
)
from disinherit.simulations.report.verdict import (
    NULL_NOTE,
    describe_speedup,
    judge,
    scope_note,
)

_STYLES = {"good": "bold green", "warning": "bold yellow", "bad": "bold red", "neutral": "bold"}


def render_tables(report: RunReport) -> list[RenderableType]:
    """Turn a report into what `rich` prints: verdict, accuracies, failures, times and notes.

    Args:
        report: the content of `report.json`, `schema_version` 1.

    Returns:
        Renderables to print one after the other; text from the report is never read as markup.

    Raises:
        DataError: if `report` is not a report.
    """
    check_report(report)
    verdict = judge(report)
    parts: list[RenderableType] = [Text(verdict.sentence, style=_STYLES[verdict.level])]
    parts += [Text(f"- {one}", style="yellow") for one in verdict.reservations]
    parts += [_accuracies(report, "forget_accuracy"), _accuracies(report, "retain_accuracy")]
    unfinished = [model for model in report["models"] if model["outcome"] in UNFINISHED]
    for model in _shown(report, unfinished):
        reason = model["error"] or "no answer yet"
        outcome = model["outcome"].replace("_", " ")
        line = f"{model['id']} ({model['owner']}) {outcome}: {reason}"
        parts.append(Text(line, style="red"))
    if len(unfinished) > LONG_TABLE:
        parts.append(Text(f"{len(unfinished) - WORST} more did not get there.", style="red"))
    parts += [Text(f"- {note}") for note in report["campaign"]["notes"]]
    parts.append(_times(report))
    parts += [Text(scope_note(report), style="dim"), Text(NULL_NOTE, style="dim")]
    return parts


def _accuracies(report: RunReport, key: AccuracyKey) -> Table:
    """One accuracy of every model, with the published rule beside it if it was run."""
    published = any(model["published"] for model in report["models"])
    what = key.replace("_", " ").capitalize()
    title = Text(f"{what}, held-out, in percent (request {report['request']['id']})")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("model", overflow="fold", min_width=8)
    table.add_column("outcome", no_wrap=True)
    for name in ("before", "after", "retrained", "gap", *(["published"] if published else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for model in _shown(report, report["models"]):
        cells = _accuracy(model, key, published=published)
        shown = Text(model["id"] + (" (root)" if model["role"] == "root" else ""))
        table.add_row(shown, _outcome(model), *cells)
    if len(report["models"]) > LONG_TABLE:
        table.caption = f"The {WORST} worst of {len(report['models'])} models; the page has all."
    return table


def _shown(report: RunReport, models: list[ModelFigures]) -> list[ModelFigures]:
    """Return all models, or the worst where they are too many for a terminal."""
    return models if len(models) <= LONG_TABLE else by_standing(report, models)[:WORST]


def _outcome(model: ModelFigures) -> Text:
    style = "red" if model["outcome"] in UNFINISHED else ""
    if is_done(model):
        style = {True: "green", False: "yellow", None: ""}[has_forgotten(model, model["after"])]
    return Text(model["outcome"].replace("_", " "), style=style)


def _accuracy(model: ModelFigures, key: AccuracyKey, *, published: bool) -> list[str]:
    cells = [number(model["before"][key]), number(model["after"][key])]
    cells += [number(reference_of(model, key)), signed(gap_of(model, key))]
    if published:
        cells.append(number(model["published"][key] if model["published"] else None))
    return cells


def _times(report: RunReport) -> Table:
    """Seconds of each step, and how they compare with retraining."""
    words = describe_speedup(report)
    table = Table(title="Seconds", caption=words or None, title_justify="left", box=SIMPLE_HEAD)
    timing = report["timing"]
    seconds = {
        "first training": timing["train"],
        "Fisher": timing["fisher"],
        "merge": timing["merge"],
        "broadcast, apply": timing["broadcast_and_apply"],
        "unlearning": timing["total"],
        "retraining": timing["retrain_all"],
    }
    for name in seconds:
        table.add_column(name, justify="right")
    table.add_row(*(number(value, 3) for value in seconds.values()))
    return table
