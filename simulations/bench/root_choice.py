"""Root methods where a root has fitted its data moderately, and entirely; and the choice of `auto`.

A root learns 150 samples that it is then to forget: with wrong labels, so that it must memorise
them, or ordinary ones.  Its owner cannot train it again.  The attack compares their losses with
those of unseen samples that are labelled alike: an area under the ROC curve of 0.5 is a guess::

    python -m disinherit.simulations.bench.root_choice --out figures.json
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from disinherit.client.dampening.summaries import register
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import unlearn_root
from disinherit.common.errors import DisinheritError
from disinherit.common.files import write_atomic
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO, Method
from disinherit.common.models.membership import area_under_curve, confidence
from disinherit.simulations.bench.cases.derivations import DerivedModel, derived_case, mislabelled
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples, Weights
from disinherit.simulations.bench.methods.case_owner import (
    CaseOwner,
    record_of,
    samples_to_forget,
)
from disinherit.simulations.bench.panel.outputs import logits_of
from disinherit.v1 import unlearning_pb2 as pb

FORGET = 150
METHODS = ("ekfac", "neggrad+", "finetune", "distil", AUTO)
_MODEL = "root"


class BoundOwner(CaseOwner):
    """An owner that registers curvature and cannot train its model again."""

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return that it cannot."""
        return False


def measure(network: str, epochs: float, samples: int, seed: int, *, wrong: bool) -> dict[str, Any]:
    """Return row -> the attack's area under the curve, test accuracy in percent, and a note.

    Args:
        network: name of the network.
        epochs: of the root's training.
        samples: that it is trained on.
        seed: of the case.
        wrong: whether the samples to forget have wrong labels.
    """
    models = {_MODEL: DerivedModel(wrong=FORGET, right_labels=not wrong)}
    case, test = derived_case(models, seed, network, samples, epochs)
    subject = case.subjects[_MODEL]
    found = {
        "no-op": _figures(case, test, subject.original, wrong=wrong),
        "replay": _figures(case, test, case.retrain(_MODEL, range(FORGET)), wrong=wrong),
    }
    with tempfile.TemporaryDirectory() as name:
        owner = BoundOwner(case, subject.owner, Path(name), curvature=True)
        with owner:
            owner.store.add(record_of(subject, 0), subject.original)
            register(owner, pb.RegisterTask(scope="head"))
            record, ids = owner.store.record(_MODEL), samples_to_forget(subject)
            method = Method(mechanism="delta", scope="all")
            for asked in METHODS:
                problem = root_problem(owner, record, method, "choice", ids)
                try:
                    used, made = unlearn_root(problem, asked)
                except DisinheritError as error:
                    found[asked] = {"note": str(error)}
                    continue
                found[asked] = _figures(case, test, made.weights, wrong=wrong)
                found[asked] |= {"method": used, "note": made.note}
    return found


def _figures(case: MethodCase, test: Samples, weights: Weights, *, wrong: bool) -> dict[str, Any]:
    unseen = test[: 4 * FORGET]
    if wrong:
        unseen = Samples(unseen.inputs, mislabelled(unseen.targets, case.seed, 10))
    network = case.subjects[_MODEL].network(weights)
    forget = case.forget_at_root[_MODEL]
    scores = (confidence(logits_of(network, some), some.targets) for some in (forget, unseen))
    right = logits_of(network, test).argmax(1) == test.targets
    return {"auc": area_under_curve(*scores), "accuracy": 100.0 * right.float().mean().item()}


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the means over seeds as a table in Markdown: area under the curve / test accuracy.

    Args:
        cells: what was measured, of one network.
    """
    columns = list(dict.fromkeys((one["epochs"], one["wrong"]) for one in cells))
    heads = [f"{e:g} epochs, {'wrong' if w else 'right'} labels" for e, w in columns]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(columns)]
    for row in cells[0]["rows"]:
        words = []
        for column in columns:
            of = [c["rows"][row] for c in cells if (c["epochs"], c["wrong"]) == column]
            known = [one for one in of if "auc" in one]
            auc, accuracy = (
                statistics.fmean(one[name] for one in known) if known else float("nan")
                for name in ("auc", "accuracy")
            )
            words.append(f"{auc:.3f} / {accuracy:.1f}")
        lines.append(f"| {row} | {' | '.join(words)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table of each network, and store the figures."""
    parser = argparse.ArgumentParser(description="Root methods on fitted roots.")
    parser.add_argument("--network", action="append", help="Repeat; mlp and cnn by default.")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--samples", type=int, default=1500, help="of the root")
    parser.add_argument("--epochs", type=float, action="append", help="Repeat; 40 and 100.")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells: list[dict[str, Any]] = []
    for network in options.network or ["mlp", "cnn"]:
        for epochs in options.epochs or [40.0, 100.0]:
            for wrong in (True, False):
                for seed in range(options.seeds):
                    rows = measure(network, epochs, options.samples, seed, wrong=wrong)
                    cells.append(
                        {
                            "network": network,
                            "epochs": epochs,
                            "wrong": wrong,
                            "seed": seed,
                            "rows": rows,
                        }
                    )
                    if options.out is not None:
                        write_atomic(options.out, (json.dumps(cells, indent=1) + "\n").encode())
        print(network, table([c for c in cells if c["network"] == network]), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
