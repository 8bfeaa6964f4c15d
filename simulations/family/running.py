"""One run of the family benchmark: requests, methods, members and what they give away."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.common.curvature.ekfac import Curvature, as_tensors, from_tensors
from disinherit.common.errors import DataError
from disinherit.common.files import write_atomic
from disinherit.simulations.family.authors import Author
from disinherit.simulations.family.campaign import measure_curvature
from disinherit.simulations.family.corpus import Corpus, encode_all, ids_of, make_corpus, texts_of
from disinherit.simulations.family.keeping import Finished
from disinherit.simulations.family.language_model import Weights, load, train
from disinherit.simulations.family.members import (
    FULL,
    MEMBERS,
    QUICK,
    TRAINED,
    Family,
    Size,
    build,
    data_of,
)
from disinherit.simulations.family.methods import METHODS, Method
from disinherit.simulations.family.page import RELEARNING_STEPS, RETRAINED, read_figures
from disinherit.simulations.family.panel import Panel, exact_match, make_exam, truth_ratios
from disinherit.simulations.family.problem import make_problem
from disinherit.simulations.report.build import environment

_GONE, _KEPT = 10, 20
"""Most authors to forget, and most others, whom the panel asks about."""


@dataclass(frozen=True, slots=True)
class FamilyPlan:
    """What a run measures.

    Attributes:
        size: how large the family is.
        requests: name of a request -> number of authors to forget.
        texts: number of real texts of each kind.
    """

    size: Size
    requests: Mapping[str, int]
    texts: int = 150


QUICK_PLAN = FamilyPlan(QUICK, {"one author": 1, "eight authors": 8})
FULL_PLAN = FamilyPlan(
    FULL, {"one author": 1, "twenty authors": 20, "a contributor of fifty authors": 50}
)


def measure(
    file: Path,
    seeds: Sequence[int],
    say: Callable[[str], None],
    *,
    quick: bool,
    work: Path | None = None,
) -> dict[str, Any]:
    """Run the benchmark on one thread for each seed, and store the figures after each.

    Seeds that the file has are not run again.

    Args:
        file: JSON file of the figures.
        seeds: of the runs.
        say: is told what is going on.
        quick: whether to take the small family.
        work: folder for what is finished of a seed; a run that was stopped goes on from there.

    Returns:
        `environment`, and `runs`, the figures of each seed.

    Raises:
        DataError: if the real texts are not there, or the file or folder is of another family.
    """
    plan = QUICK_PLAN if quick else FULL_PLAN
    measured: dict[str, Any] = {"environment": environment("cpu"), "runs": []}
    if file.exists():
        measured = read_figures(file)
    if known := {one["authors"] for one in measured["runs"]} - {plan.size.authors}:
        raise DataError(
            f"Expected figures of families of {plan.size.authors} authors in {file}, but got some "
            f"of {min(known)}. Name another file."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in seeds:
            if any(one["seed"] == seed for one in measured["runs"]):
                continue
            done = finished(work, plan, seed)
            measured["runs"].append(run(plan, seed, partial(_say, say, f"seed {seed}"), done))
            measured["runs"].sort(key=lambda one: one["seed"])
            write_atomic(file, (json.dumps(measured, indent=1) + "\n").encode())
    finally:
        torch.set_num_threads(threads)
    return measured


def finished(work: Path | None, plan: FamilyPlan, seed: int) -> Finished:
    """Return what is finished of a seed.

    Args:
        work: folder of a whole measurement; `None` to keep nothing.
        plan: what is measured.
        seed: of the run.

    Raises:
        DataError: if the folder is that of another measurement.
    """
    return Finished(None if work is None else work / f"seed-{seed}", f"{plan}")


def run(plan: FamilyPlan, seed: int, say: Callable[[str], None], done: Finished) -> dict[str, Any]:
    """Train a family, carry out each request by each method, and measure all members.

    Args:
        plan: what to measure.
        seed: of authors, texts and order of training.
        say: is told what is going on.
        done: what is finished of it.

    Returns:
        Figures as JSON has them: `requests` -> name -> `rows` -> method -> member -> figures, with
            seconds, bytes, and the attacks after it.

    Raises:
        DataError: if the real texts are not there.
    """
    corpus = make_corpus(plan.size.authors, seed, plan.texts)
    say("training the family")
    family = done.family("whole", lambda: build(corpus, plan.size, seed))
    return {
        "seed": seed,
        "authors": plan.size.authors,
        "parameters": sum(value.numel() for value in family.weights["base"].values()),
        "training_seconds": family.seconds,
        "requests": {
            name: _request(
                corpus, family, name, _chosen(corpus, count), seed, partial(_say, say, name), done
            )
            for name, count in plan.requests.items()
        },
    }


def _say(say: Callable[[str], None], name: str, step: str) -> None:
    say(f"{name}: {step}")


def _curvature(corpus: Corpus, family: Family, done: Finished) -> Curvature:
    data = data_of(corpus, "base")
    return from_tensors(
        done.tensors("curvature", lambda: as_tensors(measure_curvature(family, data)))
    )


def file_of(*words: str) -> str:
    """Return a name of a file of words such as `change: replay, repair`."""
    return "-".join(re.findall("[a-z0-9]+", " ".join(words).lower()))


def _chosen(corpus: Corpus, count: int) -> list[Author]:
    """Return authors to forget: of those whom the base was asked about in one way only."""
    return list(corpus.authors[1::2][:count])


def _request(
    corpus: Corpus,
    family: Family,
    request: str,
    gone: Sequence[Author],
    seed: int,
    say: Callable[[str], None],
    done: Finished,
) -> dict[str, Any]:
    ids = ids_of(gone)
    say("training the family again without them")
    retrained = done.family(file_of(request), lambda: build(corpus, family.size, seed, ids))
    base = retrained.weights["base"]
    problem = make_problem(
        corpus, family, base, ids, partial(_curvature, corpus, family, done), seed
    )
    kept = [author for author in corpus.authors if author not in gone][:_KEPT]
    panel = Panel(corpus, tuple(gone[:_GONE]), tuple(kept))

    @cache
    def ratios() -> Mapping[str, Tensor]:
        return {
            member: truth_ratios(retrained.loaded(member), corpus, panel.gone) for member in MEMBERS
        }

    def row(method: Method) -> dict[str, Any]:
        started = time.perf_counter()
        changed = method(problem)
        seconds = time.perf_counter() - started
        return _row(panel, changed, family, ratios(), seconds)

    rows = {
        RETRAINED: done.figures(
            file_of(request, RETRAINED),
            lambda: _row(panel, retrained, retrained, {}, retrained.seconds),
        )
    }
    for name, method in METHODS.items():
        say(name)
        rows[name] = done.figures(file_of(request, name), partial(row, method))
    return {
        "authors": len(gone),
        "samples": len(ids),
        "packet_bytes": sum(value.numel() * 4 for value in family.weights["base"].values()),
        "replay_seconds": retrained.base_seconds,
        "rows": rows,
    }


def _row(
    panel: Panel,
    family: Family,
    before: Family,
    ratios: Mapping[str, Tensor],
    seconds: float,
) -> dict[str, Any]:
    """Return the figures of a family after a method, and after what others may do with it.

    Args:
        panel: the exams.
        family: the family after the method.
        before: the family with the siblings that were not unlearned.
        ratios: truth ratios of the retrained members; none for these themselves.
        seconds: time that the method took, the replay of the base apart.
    """
    asked = make_exam(
        panel.corpus, [(q.asked, q.answer) for author in panel.gone for q in author.questions]
    )
    return {
        "seconds": seconds,
        "members": {
            member: panel.measure(family.loaded(member), ratios.get(member)) for member in MEMBERS
        },
        "relearned": {
            member: exact_match(relearned(panel.corpus, family, member), asked)
            for member in TRAINED
        },
        "merged": exact_match(merged(family, before), asked),
    }


def relearned(corpus: Corpus, family: Family, member: str) -> nn.Module:
    """Return a member after a few steps of training on authors whom nobody asked to forget."""
    network = family.loaded(member)
    data = encode_all(corpus, texts_of(corpus.strangers))
    train(network, data, epochs=RELEARNING_STEPS, rate=1e-3, steps=RELEARNING_STEPS)
    return network


def merged(family: Family, before: Family) -> nn.Module:
    """Return the average of an unlearned fine-tune and a sibling that was not unlearned."""
    one, other = family.weights["chat"], before.weights["domain"]
    halves: Weights = {name: (value + other[name]) / 2 for name, value in one.items()}
    return load(family.network(), halves)
