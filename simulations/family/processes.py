"""Requests of a family that are measured at the same time, each in a process of its own."""

import multiprocessing
import tempfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch

from disinherit.common.errors import CampaignError
from disinherit.simulations.family.keeping import Finished
from disinherit.simulations.family.running import FamilyPlan, in_order, lacking, prepare, run

_LOOK_SECONDS = 0.5

Told = Queue[tuple[str, Any]]
"""What processes say: `("", line)` for people, or a request's name and its figures so far."""


def run_in_processes(
    plan: FamilyPlan,
    seed: int,
    say: Callable[[str], None],
    done: Finished,
    *,
    known: Mapping[str, Any],
    store: Callable[[dict[str, Any]], None],
    only: Collection[str],
    jobs: int,
) -> None:
    """Do what `run` does, with several requests at the same time.

    The family and its curvature are computed once, before.

    Args:
        plan: what to measure.
        seed: of authors, texts and order of training.
        say: is told what is going on.
        done: what is finished of it, and where to compute.
        known: figures of the seed that are there.
        store: is given the figures so far after each cell.
        only: names of the requests to measure; all without any.
        jobs: processes, at least 1.

    Raises:
        CampaignError: if a process was killed.
        DataError: as `run` does.
    """
    with ExitStack() as stack:
        if done.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="family-")))
            done = Finished(folder, device=done.device)
        found = prepare(plan, seed, say, done, known=known, only=only)
        context = multiprocessing.get_context("spawn")
        told = stack.enter_context(context.Manager()).Queue()
        pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=context))
        left: set[Future[None]] = {
            pool.submit(_measure, plan, seed, done, dict(known), name, told)
            for name in lacking(found, plan, only)
        }
        failed: BaseException | None = None
        while left:
            ended, left = wait(left, _LOOK_SECONDS, "FIRST_COMPLETED")
            for name, what in _all(told):
                if not name:
                    say(what)
                    continue
                found["requests"] = in_order(plan.requests, {**found["requests"], name: what})
                store(found)
            for one in ended:
                failed = failed or one.exception()
        if isinstance(failed, BrokenProcessPool):
            raise CampaignError(
                f"Expected all requests of seed {seed} to be measured, but a process was killed. "
                "Run it again: what is finished is not measured again."
            ) from None
        if failed is not None:  # once what the others measured is stored
            raise failed


def _all(told: Told) -> list[tuple[str, Any]]:
    """Return what was said since the last time."""
    found = []
    try:
        while True:
            found.append(told.get_nowait())
    except Empty:
        return found


def _measure(
    plan: FamilyPlan,
    seed: int,
    done: Finished,
    known: Mapping[str, Any],
    name: str,
    told: Told,
) -> None:
    torch.set_num_threads(1)
    run(
        plan,
        seed,
        lambda line: told.put(("", line)),
        done,
        known=known,
        store=lambda found: told.put((name, found["requests"][name])),
        only=(name,),
    )
