"""Work of one process: the reference of a case, or one cell.

Every process computes with one thread.  The clock is around the call of the method; reading the
case and measuring what was made of it are not on it, for all methods alike.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinherit.common.errors import NotApplicableError
from disinherit.common.tensors.checkpoints import load_checkpoint, save_checkpoint
from disinherit.simulations.bench.cases.cases import open_case
from disinherit.simulations.bench.cases.subjects import Case, Samples, Subject
from disinherit.simulations.bench.cells import (
    Record,
    cell_path,
    read_record,
    reference_path,
    write_record,
)
from disinherit.simulations.bench.memory import with_peak
from disinherit.simulations.bench.methods.method import make_method, unlearn
from disinherit.simulations.bench.panel.exam import EvaluationContext, PanelSettings
from disinherit.simulations.bench.panel.margins import margins_of, train_references, without
from disinherit.simulations.bench.panel.measuring import Metrics, measure
from disinherit.simulations.bench.panel.sanity import check_gates
from disinherit.simulations.bench.panel.shadows import Shadows, train_shadows
from disinherit.simulations.bench.suites import MethodSpec, SuiteCase


def make_reference(folder: Path, case: SuiteCase, panel: PanelSettings) -> None:
    """Measure the original and the retrained models of a case, and try the gates.

    Args:
        folder: of the run.
        case: the case, already trained.
        panel: how much to spend.
    """
    torch.set_num_threads(1)
    opened = open_case(case.spec, folder / "cases")
    shadows = {}
    if panel.shadows:
        for root in opened.roots:
            trained = train_shadows(opened, root, panel.shadows)
            if trained is not None:
                shadows[root] = trained
    _save_shadows(_shadows_path(folder, opened), shadows)
    references, spread = _references(opened, panel, shadows)
    _save_margins(_margins_path(folder, opened), references)
    exams = {
        model: EvaluationContext(opened, model, panel, shadows, references.get(model))
        for model in opened.subjects
    }
    original = {m: measure(exam, exam.subject.original) for m, exam in exams.items()}
    retrained = {m: measure(exam, exam.subject.retrained) for m, exam in exams.items()}
    write_record(
        reference_path(folder, opened.name),
        {
            "case": opened.name,
            "label": case.label,
            "declaration": case.spec.to_dict(),
            "train_seconds": opened.train_seconds,
            "retrain_seconds": opened.retrain_seconds,
            "gates": check_gates(opened, panel, original, retrained),
            "spread": spread,
            "models": {
                model: {
                    "owner": subject.owner,
                    "depth": depth(opened, model),
                    "gone": not len(subject.retain),
                    "samples": len(subject.retain),
                    "parameters": sum(value.numel() for value in subject.original.values()),
                    "tested": _tested(exams[model]),
                    "original": dataclasses.asdict(original[model]),
                    "retrained": dataclasses.asdict(retrained[model]),
                }
                for model, subject in opened.subjects.items()
            },
        },
    )


def make_cell(folder: Path, case: SuiteCase, panel: PanelSettings, method: MethodSpec) -> None:
    """Unlearn in a case by a method, and measure what it made.

    Args:
        folder: of the run.
        case: the case, whose reference is there.
        panel: how much to spend.
        method: the method.
    """
    torch.set_num_threads(1)
    _warm_up()
    reference = read_record(reference_path(folder, case.spec.name))
    opened = open_case(case.spec, folder / "cases")
    record: Record = {
        "case": opened.name,
        "label": case.label,
        "seed": opened.seed,
        "granularity": opened.granularity,
        "method": method.label,
        "name": method.name,
        "options": dict(method.options),
        "not_applicable": None,
    }
    call = make_method(method.name, method.options)
    view = opened.view()
    started, computed = time.perf_counter(), time.process_time()
    try:
        made, peak = with_peak(lambda: unlearn(call, view))
    except NotApplicableError as error:
        write_record(
            cell_path(folder, opened.name, method.label), record | {"not_applicable": str(error)}
        )
        return
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - computed
    shadows = _load_shadows(_shadows_path(folder, opened))
    references = _load_margins(_margins_path(folder, opened))
    models = {}
    for model, weights in made.weights.items():
        known = reference["models"][model]
        readings = _known(opened.subjects[model], known, weights)
        if readings is None:
            exam = EvaluationContext(opened, model, panel, shadows, references.get(model))
            readings = measure(exam, weights)
        models[model] = {
            **{key: known[key] for key in ("owner", "depth", "gone")},
            "metrics": compared(readings, known["retrained"], known["original"]),
        }
    write_record(
        cell_path(folder, opened.name, method.label),
        record
        | {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "setup_seconds": made.setup_seconds,
            "setup_cpu_seconds": made.setup_cpu_seconds,
            "tune_seconds": made.tune_seconds,
            "peak_bytes": peak,
            "sent_bytes": dict(made.sent),
            "chosen": dict(made.chosen),
            "models": models,
        },
    )


def _tested(exam: EvaluationContext) -> dict[str, int]:
    """Return on how many samples the accuracies of a model are counted."""
    kept = "test_retain" if exam.case.by_class else "retain"
    return {
        "forget": len(exam.splits[exam.forget_split]),
        "retain": len(exam.splits[kept]),
        "test": len(exam.splits["test_forget"]) + len(exam.splits["test_retain"]),
    }


def _references(
    case: Case, panel: PanelSettings, shadows: Mapping[str, Shadows]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[dict[str, float]]]]:
    """Return the margins of the roots' references of other seeds, and the panels of these."""
    margins: dict[str, dict[str, Tensor]] = {}
    spread: dict[str, list[dict[str, float]]] = {}
    for root in case.roots:
        models = train_references(case, root, panel.reference_seeds)
        if models:
            margins[root] = margins_of(EvaluationContext(case, root, panel), models)
            spread[root] = [
                measure(
                    EvaluationContext(case, root, panel, shadows, without(margins[root], one)),
                    weights,
                ).values
                for one, weights in enumerate(models)
            ]
    return margins, spread


def _known(
    subject: Subject, reference: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Metrics | None:
    """Return the panel of weights that were measured for the reference: it would be the same."""
    for side, measured in (("original", subject.original), ("retrained", subject.retrained)):
        if all(torch.equal(value, measured[name]) for name, value in weights.items()):
            return Metrics(**reference[side])
    return None


def _warm_up() -> None:
    """Take a step of training: what a process's first one imports belongs on no method's clock."""
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()


def compared(
    readings: Metrics, retrained: Mapping[str, Any], original: Mapping[str, Any]
) -> dict[str, Record]:
    """Return every metric as value, reference and gap, or as null with the reason."""
    found: dict[str, Record] = {}
    for name, value in readings.values.items():
        reference = retrained["values"].get(name)
        found[name] = {
            "value": value,
            "reference": reference,
            "gap": None if reference is None else value - reference,
            "original": original["values"].get(name),
        }
    for name, reason in readings.missing.items():
        found[name] = {
            "value": None,
            "reference": retrained["values"].get(name),
            "gap": None,
            "original": original["values"].get(name),
            "reason": reason,
        }
    return found


def depth(case: Case, model: str) -> int:
    """Return the number of derivations between a model and the nearest root above it."""
    steps, reached = 0, {model}
    while not reached & set(case.roots):
        reached = {p for m in reached if m in case.subjects for p in case.subjects[m].parents}
        steps += 1
    return steps


def _shadows_path(folder: Path, case: Case) -> Path:
    return folder / "shadows" / f"{case.name}.safetensors"


def _save_shadows(path: Path, shadows: Mapping[str, Shadows]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for root, found in shadows.items():
        tensors[f"{root}/inputs"] = found.samples.inputs
        tensors[f"{root}/targets"] = found.samples.targets
        tensors[f"{root}/inside"] = found.inside
        tensors[f"{root}/outside"] = found.outside
        numbers = [float(found.members), found.variance]
        tensors[f"{root}/numbers"] = torch.tensor(numbers, dtype=torch.float64)
    save_checkpoint(path, tensors)


def _load_shadows(path: Path) -> dict[str, Shadows]:
    tensors = load_checkpoint(path)
    found = {}
    for root in sorted({name.rpartition("/")[0] for name in tensors}):
        members, variance = tensors[f"{root}/numbers"].tolist()
        found[root] = Shadows(
            Samples(tensors[f"{root}/inputs"], tensors[f"{root}/targets"]),
            int(members),
            tensors[f"{root}/inside"],
            tensors[f"{root}/outside"],
            variance,
        )
    return found


def _margins_path(folder: Path, case: Case) -> Path:
    return folder / "margins" / f"{case.name}.safetensors"


def _save_margins(path: Path, margins: Mapping[str, Mapping[str, Tensor]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{root}/{split}": known
        for root, found in margins.items()
        for split, known in found.items()
    }
    save_checkpoint(path, tensors)


def _load_margins(path: Path) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, known in load_checkpoint(path).items():
        root, _, split = name.rpartition("/")
        found.setdefault(root, {})[split] = known
    return found
