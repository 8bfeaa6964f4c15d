"""Summaries of cells: over the models of a case, then over the seeds of a label.

A metric of a cell is the mean over the affected models whose owner is still there; `worst_...` is
over owners what the worst of them has.  Where a metric is missing in a model it is left out of the
mean, and it is missing in the summary if no model of any seed has it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.statistics import Interval, interval

Side = Literal["value", "reference", "gap"]

RETRAINING = "retraining"
"""The method whose clock and traffic are the reference for those of the others."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """How a metric is shown."""

    name: str
    title: str
    digits: int = 1


PANEL = (
    MetricInfo("forget_accuracy", "forget accuracy, %"),
    MetricInfo("retain_accuracy", "retain accuracy, %"),
    MetricInfo("test_accuracy", "test accuracy, %"),
    MetricInfo("worst_forget_accuracy", "forget accuracy, worst client, %"),
    MetricInfo("worst_retain_accuracy", "retain accuracy, worst client, %"),
    MetricInfo("int8_forget_accuracy", "forget accuracy in int8, %"),
    MetricInfo("int8_retain_accuracy", "retain accuracy in int8, %"),
    MetricInfo("int4_forget_accuracy", "forget accuracy in int4, %"),
    MetricInfo("int4_retain_accuracy", "retain accuracy in int4, %"),
    MetricInfo("merged_forget_accuracy", "forget accuracy, merged with a sibling, %"),
    MetricInfo("merged_retain_accuracy", "retain accuracy, merged with a sibling, %"),
    MetricInfo("js_divergence_forget", "JS divergence, forgotten, bits", 3),
    MetricInfo("js_divergence_retain", "JS divergence, retained, bits", 3),
    MetricInfo("logit_distance_forget", "logit distance, forgotten"),
    MetricInfo("logit_distance_retain", "logit distance, retained"),
    MetricInfo("margin_divergence_forget", "divergence of margins, forgotten, nats", 2),
    MetricInfo("margin_divergence_held_out", "divergence of margins, held out, nats", 2),
    MetricInfo("neighbour_leakage", "neighbour leakage", 3),
    MetricInfo("lira_tpr", "LiRA, TPR at 1% FPR, %"),
    MetricInfo("lira_auc", "LiRA, AUC", 3),
    MetricInfo("loss_attack_auc", "loss attack, AUC", 3),
    MetricInfo("relearn_steps_few_shot", "relearning, few shots, steps"),
    MetricInfo("relearn_steps_retain_only", "relearning, retain only, steps"),
    MetricInfo("relearn_other_forget_accuracy", "forget accuracy after other data, %"),
    MetricInfo("probe", "probe of the last hidden layer, %"),
    MetricInfo("tug_of_war", "tug of war", 3),
)
"""What every model is measured for, in the order of the report."""

COSTS = (
    MetricInfo("seconds", "seconds, without set-up", 2),
    MetricInfo("cpu_seconds", "CPU seconds, with set-up", 2),
    MetricInfo("setup_seconds", "set-up, done when trained, seconds", 2),
    MetricInfo("tune_seconds", "of it tuning, seconds", 2),
    MetricInfo("peak_megabytes", "peak memory, MB"),
    MetricInfo("sent_kilobytes", "sent, busiest device, kB"),
)
"""What a method costs; the reference is exact retraining in the same kind of process."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A metric of a method in a case, over its seeds; a side is `None` where nothing has it."""

    value: Interval | None
    reference: Interval | None
    gap: Interval | None


Table = dict[str, dict[str, Summary]]
"""Method -> metric -> summary."""


def summarise(cells: Iterable[Record]) -> dict[str, Table]:
    """Return the summaries of every label: label -> method -> metric.

    A method that is not applicable to a case is not in its table.
    """
    seeds: dict[tuple[str, str], list[dict[str, Record]]] = defaultdict(list)
    clocks = {cell["case"]: cell for cell in cells if _ran(cell) and cell["name"] == RETRAINING}
    tables: dict[str, Table] = {}
    for cell in cells:
        tables.setdefault(cell["label"], {})
        if _ran(cell):
            seeds[cell["label"], cell["method"]].append(
                panel_of(cell) | costs_of(cell, clocks.get(cell["case"]))
            )
    for (label, method), found in seeds.items():
        names = dict.fromkeys(name for metrics in found for name in metrics)
        tables[label][method] = {
            name: summary([metrics[name] for metrics in found if name in metrics]) for name in names
        }
    return tables


def panel_of(cell: Record, depth: int | None = None) -> dict[str, Record]:
    """Return the metrics of a cell: the mean over its models, and the worst client.

    Args:
        cell: a cell.
        depth: look at models of this depth only.
    """
    models = [
        model
        for model in cell["models"].values()
        if not model["gone"] and depth in (None, model["depth"])
    ]
    named = [_with_probe(model["metrics"]) for model in models]
    found: dict[str, Record] = {}
    for name in dict.fromkeys(name for metrics in named for name in metrics):
        sides = [metrics[name] for metrics in named if name in metrics]
        found[name] = {side: _mean(entry[side] for entry in sides) for side in _SIDES}
    for name, worst in (("forget_accuracy", max), ("retain_accuracy", min)):
        found[f"worst_{name}"] = _worst(models, name, worst)
    return found


def costs_of(cell: Record, retraining: Record | None) -> dict[str, Record]:
    """Return what a cell cost beside what exact retraining of the same case did."""
    mine = _costs(cell)
    theirs = _costs(retraining) if retraining else {}
    found = {}
    for name, value in mine.items():
        reference = theirs.get(name)
        known = value is not None and reference is not None
        gap = value - reference if known else None  # type: ignore[operator]
        found[name] = {"value": value, "reference": reference, "gap": gap}
    return found


def summary(seeds: Sequence[Record]) -> Summary:
    """Return a metric over its seeds."""
    sides = {side: [seed[side] for seed in seeds if seed[side] is not None] for side in _SIDES}
    value, reference, gap = (interval(found) if found else None for found in sides.values())
    return Summary(value, reference, gap)


_SIDES: tuple[Side, ...] = ("value", "reference", "gap")


def _ran(cell: Record) -> bool:
    return cell["not_applicable"] is None


def _costs(cell: Record) -> dict[str, float | None]:
    peak = cell["peak_bytes"]
    return {
        "seconds": cell["seconds"] - cell["setup_seconds"],
        "cpu_seconds": cell["cpu_seconds"],
        "setup_seconds": cell["setup_seconds"],
        "tune_seconds": cell["tune_seconds"],
        "peak_megabytes": None if peak is None else peak / 1e6,
        "sent_kilobytes": max(cell["sent_bytes"].values(), default=0) / 1e3,
    }


def _with_probe(metrics: Record) -> Record:
    probes = [name for name in metrics if name.startswith("probe/")]
    return {**metrics, "probe": metrics[probes[-1]]} if probes else metrics


def _worst(
    models: Sequence[Record], name: str, worst: Callable[[Iterable[float]], float]
) -> dict[str, float | None]:
    """Return what the worst owner has; the reference is the worst owner's after retraining."""
    ends: dict[str, float | None] = {}
    for side in ("value", "reference"):
        owners: dict[str, list[float | None]] = defaultdict(list)
        for model in models:
            owners[model["owner"]].append(model["metrics"].get(name, {}).get(side))
        means = [mean for found in owners.values() if (mean := _mean(found)) is not None]
        ends[side] = worst(means) if means else None
    value, reference = ends["value"], ends["reference"]
    ends["gap"] = None if value is None or reference is None else value - reference
    return ends


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
