"""Runs of a suite: training of what is missing, then references, then cells, many at a time."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disinherit.common.errors import InputError
from disinherit.common.files import write_atomic
from disinherit.simulations.bench.cases.cases import build_cases
from disinherit.simulations.bench.cells import (
    cell_path,
    read_record,
    read_run,
    reference_path,
    write_record,
)
from disinherit.simulations.bench.suites import Suite, declaration
from disinherit.simulations.bench.working import make_cell, make_reference
from disinherit.simulations.report.build import environment

Say = Callable[[str], None]

_SLOW_IMPORT = "torch._dynamo"
"""What the first optimizer of a process imports, for seconds."""

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does.

    Attributes:
        what: for a person.
        path: the file that is there once it is done.
        work: the function, in a module that the process can import.
        arguments: of the function.
    """

    what: str
    path: Path
    work: Callable[..., None]
    arguments: tuple[Any, ...]


def run_suite(suite: Suite, folder: Path, jobs: int, say: Say = lambda _: None) -> list[str]:
    """Run what is left of a suite.

    Args:
        suite: the suite.
        folder: where everything goes.
        jobs: processes at the same time.
        say: told what is happening.

    Returns:
        What is wrong: cells that failed, and gates that were not passed.

    Raises:
        InputError: if the folder holds something else, or jobs is not positive.
        CampaignError: if a model could not be trained.
        CheckpointError: if something cannot be written.
    """
    if jobs < 1:
        raise InputError(f"Expected jobs >= 1, but got {jobs}.")
    folder = folder.absolute()
    _prepare(folder, suite, environment("cpu"))
    build_cases([case.spec for case in suite.cases], folder / "cases", say)
    failures = run_jobs(
        [
            Job(
                f"reference of {case.spec.name}",
                reference_path(folder, case.spec.name),
                make_reference,
                (folder, case, suite.panel),
            )
            for case in suite.cases
        ],
        jobs,
        say,
    )
    ready = [case for case in suite.cases if reference_path(folder, case.spec.name).is_file()]
    failures += run_jobs(
        [
            Job(
                f"{method.label} on {case.spec.name}",
                cell_path(folder, case.spec.name, method.label),
                make_cell,
                (folder, case, suite.panel, method),
            )
            for case in ready
            for method in suite.methods
        ],
        jobs,
        say,
    )
    for case in ready:
        gates = read_record(reference_path(folder, case.spec.name))["gates"]
        failures += [f"{case.spec.name}: {reason}" for reason in gates]
    _gather(folder)
    return failures


def run_jobs(todo: Sequence[Job], jobs: int, say: Say) -> list[str]:
    """Run the jobs whose file is not there, each in a fresh process, and return what failed."""
    missing = [job for job in todo if not job.path.is_file()]
    if not missing:
        return []
    os.environ.update(_ONE_THREAD)  # inherited by the processes, which have not started yet
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([make_cell.__module__, _SLOW_IMPORT])
    failures = []
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        started = {pool.submit(job.work, *job.arguments): job for job in missing}
        for number, (job, reason) in enumerate(_finished(started), start=1):
            say(f"[{number}/{len(missing)}] {job.what}{f' failed: {reason}' if reason else ''}")
            if reason:
                failures.append(f"{job.what} failed: {reason}")
    return failures


def _prepare(folder: Path, suite: Suite, environment: Mapping[str, Any]) -> None:
    """Make a folder ready for a suite; one that holds the same suite is gone on with.

    Raises:
        InputError: if it holds another suite, or something else.
        CheckpointError: if it cannot be written to.
    """
    path = folder / "suite.json"
    declared = json.loads(json.dumps(declaration(suite)))
    if path.exists():
        if read_record(path).get("suite") != declared:
            raise InputError(
                f"Expected a new folder or one of the same suite, but {folder} has another one, or "
                f"{suite.name!r} has changed since. Choose another folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"Expected a new or empty folder, but {folder} is neither.")
    write_record(path, {"suite": declared, "environment": dict(environment)})


def _finished(started: dict[Future[None], Job]) -> Iterable[tuple[Job, str]]:
    for future in as_completed(started):
        try:
            future.result()
        except BrokenProcessPool:
            yield started[future], "its process, or another one, was killed"
        except Exception as error:  # whatever a method raises, the other cells go on
            yield started[future], f"{type(error).__name__}: {error}"
        else:
            yield started[future], ""


def _gather(folder: Path) -> None:
    """Write all cells into one file."""
    try:
        _, _, cells = read_run(folder)
    except InputError:
        return  # not one cell is there
    lines = [json.dumps(cell, ensure_ascii=False) + "\n" for cell in cells]
    write_atomic(folder / "results.jsonl", "".join(lines).encode())
