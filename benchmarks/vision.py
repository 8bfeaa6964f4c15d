"""Accuracies of the suite `vision`, without the rest of its panel, which takes an hour.

    python benchmarks/vision.py --cases runs/vision/cases --out docs/figures/vision.json

Cases that are there, such as those of `disinherit bench run vision`, are not trained again.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from disinherit.common.errors import NotApplicableError
from disinherit.simulations.bench.cases.cases import build_cases, open_case
from disinherit.simulations.bench.cases.subjects import Case, Weights
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, markdown_table
from disinherit.simulations.bench.methods.method import make_method, unlearn
from disinherit.simulations.bench.panel import accuracies
from disinherit.simulations.bench.panel.exam import EvaluationContext
from disinherit.simulations.bench.suites import Suite, load_suite

Figures = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="vision")
    parser.add_argument("--cases", type=Path, required=True, help="where trained models are")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    suite = load_suite(arguments.suite)
    build_cases([case.spec for case in suite.cases], arguments.cases, print)
    found: dict[str, dict[str, Any]] = {}
    for listed in suite.cases:
        opened = open_case(listed.spec, arguments.cases)
        found[f"{listed.label}, seed {opened.seed}"] = {
            "train_seconds": opened.train_seconds,
            "retrain_seconds": opened.retrain_seconds,
            "methods": measured(opened, suite),
        }
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    for label, case in found.items():
        print(f"\n{label}: retraining took {case['retrain_seconds']:.0f} s\n")
        print(table(case["methods"]))


def measured(opened: Case, suite: Suite) -> dict[str, dict[str, object]]:
    """Return seconds and accuracies of each model, for the retrained ones and each method."""
    retrained = {name: one.retrained for name, one in opened.subjects.items()}
    found: dict[str, dict[str, object]] = {
        "retrained": {"seconds": None, "models": read(opened, suite, retrained)}
    }
    for method in suite.methods:
        if method.name == "retraining":
            continue  # it gives the retrained models bit for bit
        started, computed = time.perf_counter(), time.process_time()
        try:
            made = unlearn(make_method(method.name, method.options), opened.view())
        except NotApplicableError:
            continue
        seconds = time.perf_counter() - started
        computed = time.process_time() - computed
        models = read(opened, suite, dict(made.weights))
        found[method.label] = {"seconds": seconds, "cpu_seconds": computed, "models": models}
        print(opened.name, method.label, f"{seconds:.0f} s", flush=True)
    return found


def read(opened: Case, suite: Suite, weights: dict[str, Weights]) -> Figures:
    """Return the accuracies in percent of each model whose owner has not left."""
    figures = {}
    for name, subject in opened.subjects.items():
        if not len(subject.retain):
            continue
        exam = EvaluationContext(opened, name, suite.panel)
        candidate = exam.candidate(weights[name])
        figures[name] = {
            **accuracies.forget_accuracy(exam, candidate),
            **accuracies.retain_accuracy(exam, candidate),
            **accuracies.test_accuracy(exam, candidate),
        }
    return figures


def table(methods: dict[str, dict[str, object]]) -> str:
    """Return means over models as Markdown."""
    rows = []
    for label, one in methods.items():
        models = one["models"]
        assert isinstance(models, dict)
        means = [
            f"{statistics.mean(model[f'{kind}_accuracy'] for model in models.values()):.1f}"
            for kind in ("forget", "retain", "test")
        ]
        seconds = one.get("cpu_seconds")
        took = f"{seconds:.1f}" if isinstance(seconds, float) else NO_FIGURE
        rows.append((label, *means, took))
    header = ("method", "forget", "retain", "test", "CPU seconds")
    return markdown_table(TextTable(header, tuple(rows)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
