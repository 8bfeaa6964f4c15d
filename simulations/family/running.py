"""One run of the family benchmark: requests, methods, members and what they give away."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinherit.common.curvature.ekfac import Curvature, as_tensors, from_tensors
from disinherit.common.models.devices import described, is_accelerator, wait_for
from disinherit.simulations.family.authors import Author
from disinherit.simulations.family.campaign import measure_curvature
from disinherit.simulations.family.corpus import Corpus, ids_of, make_corpus
from disinherit.simulations.family.keeping import Finished
from disinherit.simulations.family.language_model import CPU
from disinherit.simulations.family.members import (
    FULL,
    MEMBERS,
    QUICK,
    Family,
    Size,
    build,
    data_of,
)
from disinherit.simulations.family.method_figures import member_figures
from disinherit.simulations.family.methods import EKFAC, METHODS
from disinherit.simulations.family.page import RETRAINED
from disinherit.simulations.family.panel import Panel, truth_ratios
from disinherit.simulations.family.problem import make_problem

_GONE, _KEPT = 10, 20
"""Most authors to forget, and most others, whom the panel asks about."""

NOTHING: Mapping[str, Any] = {"requests": {}}
"""Figures of a seed of which nothing was measured."""


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


def finished(
    work: Path | None, plan: FamilyPlan, seed: int, device: torch.device = CPU
) -> Finished:
    """Return what is finished of a seed.

    Args:
        work: folder of a whole measurement; `None` to keep nothing.
        plan: what is measured.
        seed: of the run.
        device: where to compute.

    Raises:
        DataError: if the folder is that of another measurement.
    """
    folder = None if work is None else work / f"seed-{seed}"
    place = f", on {described(device)}" if is_accelerator(device) else ""
    return Finished(folder, f"{plan}, members {', '.join(MEMBERS)}{place}", device)


def lacking(
    known: Mapping[str, Any], plan: FamilyPlan, only: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return what the figures of a seed lack: request -> methods whose cells are not there.

    Args:
        known: figures of the seed, as `run` stores them.
        plan: what is measured.
        only: names of the requests to look at; all without any.
    """
    found = {
        name: [
            method
            for method in (RETRAINED, *METHODS)
            if not _is_whole(known["requests"].get(name, {}).get("rows", {}).get(method))
        ]
        for name in plan.requests
        if not only or name in only
    }
    return {name: methods for name, methods in found.items() if methods}


def _is_whole(cell: Mapping[str, Any] | None) -> bool:
    return cell is not None and list(cell["members"]) == list(MEMBERS)


def prepare(
    plan: FamilyPlan,
    seed: int,
    say: Callable[[str], None],
    done: Finished,
    *,
    known: Mapping[str, Any] = NOTHING,
    only: Collection[str] = (),
) -> dict[str, Any]:
    """Train a family, and compute the curvature of its base where a request lacks what needs it.

    Args:
        plan: what is to be measured.
        seed: of authors, texts and order of training.
        say: is told what is going on.
        done: what is finished of it, and where to compute.
        known: figures of the seed that are there.
        only: names of the requests to measure; all without any.

    Returns:
        Figures of the seed: those of the training, and the requests that `known` has.

    Raises:
        DataError: if the real texts are not there.
    """
    corpus, family = _trained(plan, seed, say, done)
    found = _described(plan, seed, family, known)
    if any(EKFAC in methods for methods in lacking(found, plan, only).values()):
        say("the curvature of its base")
        _curvature(corpus, family, done)
    return found


def run(
    plan: FamilyPlan,
    seed: int,
    say: Callable[[str], None],
    done: Finished,
    *,
    known: Mapping[str, Any] = NOTHING,
    store: Callable[[dict[str, Any]], None] = lambda found: None,
    only: Collection[str] = (),
) -> dict[str, Any]:
    """Train a family, carry out each request by each method, and measure all members.

    Args:
        plan: what to measure.
        seed: of authors, texts and order of training.
        say: is told what is going on.
        done: what is finished of it, and where to compute.
        known: figures of the seed that are there; its whole cells are not measured again.
        store: is given the figures so far after each cell.
        only: names of the requests to measure; all without any.

    Returns:
        Figures as JSON has them: `requests` -> name -> `rows` -> method -> member -> figures, with
            seconds, bytes, and the attacks after it.

    Raises:
        DataError: if the real texts are not there.
    """
    corpus, family = _trained(plan, seed, say, done)
    earlier = known["requests"]
    found = _described(plan, seed, family, known)
    curvature = cache(partial(_curvature, corpus, family, done))  # of the base, for all requests
    for name, methods in lacking(found, plan, only).items():
        request = _Asked(
            corpus, family, curvature, name, _chosen(corpus, plan.requests[name]), seed,
            prefixed(say, name), done,
        )  # fmt: skip
        rows = dict(earlier.get(name, {}).get("rows", {}))
        retrained = request.retrained()
        described = {
            "authors": len(request.gone),
            "samples": len(ids_of(request.gone)),
            "packet_bytes": sum(one.numel() * 4 for one in family.weights["base"].values()),
            "replay_seconds": retrained.base_seconds,
        }
        for method, cell in _cells(request, retrained, methods):
            rows[method] = cell
            present = in_order((RETRAINED, *METHODS), rows)
            found["requests"][name] = {**described, "rows": present}
            found["requests"] = in_order(plan.requests, found["requests"])
            store(found)
    return found


def _trained(
    plan: FamilyPlan, seed: int, say: Callable[[str], None], done: Finished
) -> tuple[Corpus, Family]:
    corpus = make_corpus(plan.size.authors, seed, plan.texts)
    say("training the family")
    return corpus, done.family("whole", lambda: build(corpus, plan.size, seed, device=done.device))


def _described(
    plan: FamilyPlan, seed: int, family: Family, known: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "seed": seed,
        "authors": plan.size.authors,
        "parameters": sum(value.numel() for value in family.weights["base"].values()),
        "training_seconds": family.seconds,
        "training_cpu_seconds": family.cpu_seconds,
        "requests": in_order(plan.requests, known["requests"]),
    }


def in_order(order: Iterable[str], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found by name, in an order of names that may not all be there."""
    return {name: found[name] for name in order if name in found}


def prefixed(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    """Return what tells a step with a name before it."""
    return lambda step: say(f"{name}: {step}")


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to a family.

    Attributes:
        corpus: the texts.
        family: the family as it is.
        curvature: returns that of its base.
        name: of the request.
        gone: authors to forget.
        seed: of the family.
        say: is told what is going on.
        done: what is finished.
    """

    corpus: Corpus
    family: Family
    curvature: Callable[[], Curvature]
    name: str
    gone: Sequence[Author]
    seed: int
    say: Callable[[str], None]
    done: Finished

    def retrained(self) -> Family:
        """Return the family, trained again without the authors."""
        self.say("training the family again without them")
        size, ids, device = self.family.size, ids_of(self.gone), self.done.device
        return self.done.family(
            file_of(self.name), lambda: build(self.corpus, size, self.seed, ids, device)
        )


def _cells(
    asked: _Asked, retrained: Family, methods: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield methods of a request with their figures, as they are measured."""
    corpus, family, done = asked.corpus, asked.family, asked.done
    base = retrained.weights["base"]
    problem = make_problem(corpus, family, base, ids_of(asked.gone), asked.curvature, asked.seed)
    kept = [author for author in corpus.authors if author not in asked.gone][:_KEPT]
    panel = Panel(corpus, tuple(asked.gone[:_GONE]), tuple(kept))

    @cache
    def ratios() -> Mapping[str, Tensor]:
        return {
            member: truth_ratios(retrained.loaded(member), corpus, panel.gone) for member in MEMBERS
        }

    def row(name: str) -> dict[str, Any]:
        if name == RETRAINED:
            return {
                "seconds": retrained.seconds,
                "cpu_seconds": retrained.cpu_seconds,
                **member_figures(panel, retrained, retrained, {}),
            }
        started, computed = time.perf_counter(), time.process_time()
        changed = METHODS[name](problem)
        wait_for(family.device)
        spent = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - computed,
        }
        return {**spent, **member_figures(panel, changed, family, ratios())}

    for name in methods:
        asked.say(name)
        yield name, done.figures(file_of(asked.name, name), partial(row, name))
