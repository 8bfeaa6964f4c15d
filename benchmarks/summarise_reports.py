"""Means over seeds of several runs, as Markdown tables or reduced to the figures behind them.

    python benchmarks/summarise_reports.py RUN/report.json ...           # the tables
    python benchmarks/summarise_reports.py --reduce RUN/report.json ...  # the figures, as JSON

A file holds one report or a list of them; what `--reduce` prints can be read again.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RunReport = Mapping[str, Any]

STATES = ("before", "after", "retrained", "published")
ACCURACIES = ("forget_accuracy", "retain_accuracy")
STAGES = {
    "train": "first training",
    "fisher": "Fisher",
    "merge": "merge",
    "broadcast_and_apply": "broadcast, apply",
    "total": "unlearning",
    "retrain_all": "replay of the training",
}
MODEL_KEYS = ("id", "role", "forgotten", "outcome", "selected_fraction", "alpha", "lambda", "gauge")
REPORT_KEYS = ("schema_version", "disinherit", "scenario", "request", "splits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json")
    parser.add_argument("--reduce", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    reports = list(read(arguments.reports))
    if arguments.reduce:
        print(json.dumps([reduced(report) for report in reports], indent=1))
        return
    groups: dict[str, list[RunReport]] = {}
    for report in reports:
        groups.setdefault(title(report), []).append(report)
    print("\n\n".join([*(accuracies(name, runs) for name, runs in groups.items()), times(groups)]))


def read(paths: Iterable[Path]) -> Iterable[RunReport]:
    for path in paths:
        content = json.loads(path.read_text())
        yield from content if isinstance(content, list) else [content]


def reduced(report: RunReport) -> RunReport:
    """Keep what determines a run, its accuracies and its times."""
    models = []
    for model in report["models"]:
        kept = {key: model[key] for key in MODEL_KEYS}
        for state in STATES:
            found = model[state]
            kept[state] = found and {key: found[key] for key in ACCURACIES}
        models.append(kept)
    return {
        **{key: report[key] for key in REPORT_KEYS},
        "models": models,
        **{key: report[key] for key in ("campaign", "repeat", "timing", "environment")},
    }


def title(report: RunReport) -> str:
    """Name what runs that differ only in their seed have in common."""
    roots = "; ".join(
        f"{', '.join(r['classes'])} at {r['model']}" for r in report["request"]["roots"]
    )
    return f"{report['scenario']['dataset']}, forget {roots}"


def accuracies(name: str, runs: Sequence[RunReport]) -> str:
    """Return the accuracies of the affected models, in percent: means over the runs."""
    affected = [m["id"] for m in runs[0]["models"] if m["role"] != "untouched"]
    states = [s for s in STATES if all(model(run, m)[s] for run in runs for m in affected)]
    titles = [f"{what}: {state}" for what in ("forget", "retain") for state in states]
    rows = []
    for id in affected:
        values = [
            mean(model(run, id)[state][key] for run in runs)
            for key in ACCURACIES
            for state in states
        ]
        values.append(mean(100 * model(run, id)["selected_fraction"] for run in runs))
        rows.append((id, values))
    rows.append(("**mean**", [mean(column) for column in zip(*(v for _, v in rows), strict=True)]))
    seeds = ", ".join(str(run["scenario"]["seed"]) for run in runs)
    return f"**{name}** (seeds {seeds}; percent)\n\n" + table(
        ["model", *titles, "selected"],
        [[id, *(f"{value:.1f}" for value in values)] for id, values in rows],
    )


def times(groups: Mapping[str, Sequence[RunReport]]) -> str:
    """Return the seconds of every stage: means over the runs."""
    rows = [
        [name, *(f"{mean(run['timing'][stage] for run in runs):.3f}" for stage in STAGES)]
        for name, runs in groups.items()
    ]
    return "**Seconds**\n\n" + table(["request", *STAGES.values()], rows)


def model(run: RunReport, id: str) -> Mapping[str, Any]:
    return next(m for m in run["models"] if m["id"] == id)


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
