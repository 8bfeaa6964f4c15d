"""A measurement of families: seeds, and the file of their figures."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from disinherit.common.errors import DataError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.models.devices import pick_device
from disinherit.simulations.family.page import read_figures
from disinherit.simulations.family.processes import run_in_processes
from disinherit.simulations.family.running import (
    FULL_PLAN,
    NOTHING,
    QUICK_PLAN,
    finished,
    lacking,
    prefixed,
    run,
)
from disinherit.simulations.report.build import environment


def measure(
    file: Path,
    seeds: Sequence[int],
    say: Callable[[str], None],
    *,
    quick: bool,
    work: Path | None = None,
    only: Collection[str] = (),
    device: str = "cpu",
    jobs: int = 1,
) -> dict[str, Any]:
    """Run the benchmark seed by seed, with one thread a process, and store each cell when measured.

    Cells that the file has, with all members, are not measured again.

    Args:
        file: JSON file of the figures.
        seeds: of the runs.
        say: is told what is going on.
        quick: whether to take the small family.
        work: folder for what is finished of a seed; a run that was stopped goes on from there.
        only: names of the requests to measure; all of the family's without any.
        device: where to compute, as `pick_device` takes it.
        jobs: requests that are measured at the same time, each in a process of its own.

    Returns:
        `environment`, and `runs`, the figures of each seed.

    Raises:
        DataError: if the real texts are not there, the file or folder is of another family or
            device, or it has no such request.
        CampaignError: if a process was killed.
        InputError: if the device is not here, or jobs is not positive.
    """
    if jobs < 1:
        raise InputError(f"Expected jobs >= 1, but got {jobs}.")
    plan = QUICK_PLAN if quick else FULL_PLAN
    for name in only:
        if name not in plan.requests:
            raise DataError(
                f"Expected requests among {', '.join(map(repr, plan.requests))}, but got {name!r}."
            )
    measured: dict[str, Any] = {"environment": environment(device), "runs": []}
    if file.exists():
        here, measured = measured["environment"]["device"], read_figures(file)
        if (there := measured["environment"].get("device", "?")) != here:
            raise DataError(
                f"Expected figures measured on {here} in {file}, but got some on {there}. Name "
                "another file."
            )
    if known := {one["authors"] for one in measured["runs"]} - {plan.size.authors}:
        raise DataError(
            f"Expected figures of families of {plan.size.authors} authors in {file}, but got some "
            f"of {min(known)}. Name another file."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in seeds:
            same = [one for one in measured["runs"] if one["seed"] == seed]
            earlier: Mapping[str, Any] = same[0] if same else NOTHING
            if not lacking(earlier, plan, only):
                continue
            tell = prefixed(say, f"seed {seed}")
            store = partial(_store, file, measured)
            done = finished(work, plan, seed, pick_device(device))
            start = run if jobs == 1 else partial(run_in_processes, jobs=jobs)
            start(plan, seed, tell, done, known=earlier, store=store, only=only)
    finally:
        torch.set_num_threads(threads)
    return measured


def _store(file: Path, measured: dict[str, Any], found: Mapping[str, Any]) -> None:
    others = [one for one in measured["runs"] if one["seed"] != found["seed"]]
    measured["runs"] = sorted([*others, found], key=lambda one: one["seed"])
    write_atomic(file, (json.dumps(measured, indent=1) + "\n").encode())
