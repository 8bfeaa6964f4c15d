"""Cells of a bench as a run would write them, with figures made up for a test."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests import ROOT

Record = dict[str, Any]


def entry(value: float | None, reference: float = 0.0) -> Record:
    """A metric of one model."""
    gap = None if value is None else value - reference
    missing = {} if value is not None else {"reason": "there was nothing to measure"}
    return {"value": value, "reference": reference, "gap": gap, "original": 1.0, **missing}


def cell(
    method: str,
    seed: int,
    metrics: Mapping[str, Record],
    *,
    label: str = "one class",
    granularity: str = "class",
    seconds: float = 1.0,
    models: Mapping[str, Record] | None = None,
) -> Record:
    """A cell with one model, or with the given ones."""
    model = {"owner": "owner-0", "depth": 0, "gone": False, "metrics": dict(metrics)}
    return {
        "case": f"{label}-{seed}",
        "label": label,
        "seed": seed,
        "granularity": granularity,
        "method": method,
        "name": method,
        "options": {},
        "not_applicable": None,
        "seconds": seconds,
        "cpu_seconds": seconds,
        "setup_seconds": 0.0,
        "tune_seconds": 0.0,
        "peak_bytes": None,
        "sent_bytes": {},
        "chosen": {},
        "models": dict(models or {"r1": model}),
    }


def run_record(*methods: str, aims: Mapping[str, Any] | None = None) -> Record:
    """What `suite.json` holds."""
    return {
        "suite": {
            "name": "tiny",
            "cases": [{"label": "one class"}],
            "methods": [{"name": name, "label": name, "options": {}} for name in methods],
            "panel": {},
            "aims": None if aims is None else dict(aims),
        },
        "environment": {"torch": "0.0"},
    }


def reference(
    case: str,
    gates: list[str] | None = None,
    *,
    roots: Sequence[str] = ("r1",),
    edges: Sequence[str] = (),
    models: Sequence[str] = ("r1",),
) -> Record:
    """The part of a reference that pages look at."""
    settings = {
        "partition": "iid",
        "concentration": 0.5,
        "forget": {root: ["3"] for root in roots},
        "scenario": {"edges": [{"edge": edge} for edge in edges]},
    }
    return {
        "case": case,
        "label": case.rpartition("-")[0],
        "gates": gates or [],
        "declaration": {"settings": settings},
        "models": {model: {} for model in models},
    }


def results_command(name: str) -> list[str]:
    """The arguments with which `make results` calls a command of `disinherit bench`."""
    make = ["make", "-n", "-s", "-o", ".venv/.installed", "results"]
    done = subprocess.run(make, capture_output=True, text=True, check=True, cwd=ROOT)
    (line,) = (one for one in done.stdout.splitlines() if f" bench {name} " in one)
    return shlex.split(line)[1:]
