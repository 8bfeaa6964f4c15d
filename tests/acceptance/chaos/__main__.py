"""Inject faults into campaigns, and check that every one of them comes to what it would have.

    python -m tests.acceptance.chaos --out runs/chaos

The exit code is 1 if anything did not hold, or fewer faults than wanted were injected.
"""

import argparse
import functools
import json
import logging
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from disinherit.common.errors import DisinheritError
from disinherit.common.files import write_atomic
from disinherit.simulations.report.build import environment
from tests.acceptance.chaos import troubles
from tests.acceptance.chaos.campaigns import carry_out, plan_campaigns
from tests.acceptance.chaos.federation import build, make_delta_request
from tests.acceptance.chaos.rounds import CLOCK, DISHONEST, KINDS, LONG, ON_THE_LINE, Rounds
from tests.acceptance.chaos.tally import Tally

WANTED = 700
"""Faults at least."""

_ROUNDS = 12
_AMONG_AGENTS = 11
_EVERYWHERE = 3
INSIDE, FLEET = "inside", "fleet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject the faults, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="for the report")
    seed = secrets.randbelow(2**31)
    parser.add_argument("--seed", type=int, default=seed, help="of what is random, to repeat it")
    parser.add_argument(
        "--only", choices=[INSIDE, FLEET], help="faults in this process, or in real processes"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # digests depend on it, and forked processes have no other threads
    logging.getLogger("disinherit").addHandler(logging.NullHandler())
    print(f"seed {options.seed}", flush=True)
    tally = Tally(options.seed)
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="disinherit-chaos-") as scratch:
            if options.only != FLEET:
                _inside(Path(scratch) / INSIDE, tally)
            if options.only != INSIDE:
                _fleet(Path(scratch) / FLEET, tally, options.out)
    except (DisinheritError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    seconds = round(time.perf_counter() - started)
    figures = {**tally.to_dict(), "seconds": seconds, "environment": environment("cpu")}
    write_atomic(options.out / "chaos.json", json.dumps(figures, indent=2).encode())
    print(tally.table())
    print(f"{seconds} s")
    if not options.only and tally.injected < WANTED:
        print(f"error: expected {WANTED} faults or more, but got {tally.injected}", file=sys.stderr)
        return 1
    return 1 if tally.failures else 0


def _inside(scratch: Path, tally: Tally) -> None:
    scratch.mkdir()
    rounds = Rounds(scratch, tally, _say)
    for kind, trouble in KINDS.items():
        # One round has many messages, of which each may meet with something.
        many = kind in ON_THE_LINE or kind in DISHONEST or kind == CLOCK
        rounds.carry_out(kind, trouble, _ROUNDS // 3 if many else _ROUNDS)
        _say(f"{kind}: {tally.lines[kind].injected}")
    rounds.carry_out(LONG, troubles.lock_for_long, 1)
    if not rounds.carry_out_on_postgres(_ROUNDS):
        _say("PostgreSQL is not installed: it cannot go away")


def _fleet(scratch: Path, tally: Tally, out: Path) -> None:
    scratch.mkdir()
    built = scratch / "built"
    build(built)
    by_change = functools.partial(make_delta_request, built)
    planned = plan_campaigns(tally.seed, _AMONG_AGENTS, _EVERYWHERE, by_change)
    try:
        carry_out(built, scratch, planned, tally, _say)
    finally:
        logs = scratch / FLEET / "logs"
        if logs.exists():
            shutil.copytree(
                logs, out / "logs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock")
            )


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main())
