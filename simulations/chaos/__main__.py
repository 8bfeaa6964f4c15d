"""Inject faults into campaigns, and check that every one of them comes to what it would have.

    python -m disinherit.simulations.chaos --out runs/chaos

The exit code is 1 if anything did not hold, or fewer faults than wanted were injected.
"""

import argparse
import json
import logging
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from disinherit.common.checkpoints import write_atomic
from disinherit.common.errors import DisinheritError
from disinherit.simulations.chaos import troubles
from disinherit.simulations.chaos.rounds import KINDS, LONG, ON_THE_LINE, Rounds
from disinherit.simulations.chaos.tally import Tally

WANTED = 200
"""Faults at least."""

_ROUNDS = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject the faults, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="for the report")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), help="to repeat a run"
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="of each kind of fault")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # digests depend on it, and forked processes have no other threads
    logging.getLogger("disinherit").addHandler(logging.NullHandler())
    try:
        return _run(options.out, options.seed, options.rounds)
    except DisinheritError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(out: Path, seed: int, rounds: int) -> int:
    print(f"seed {seed}", flush=True)
    tally = Tally(seed)
    started = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="disinherit-chaos-") as scratch:
        inside = Rounds(Path(scratch), tally, lambda what: print(what, flush=True))
        for kind, trouble in KINDS.items():
            # One round has many messages, of which each may meet with something.
            inside.carry_out(kind, trouble, rounds // 3 if kind in ON_THE_LINE else rounds)
            print(f"{kind}: {tally.lines[kind].injected}", flush=True)
        inside.carry_out(LONG, troubles.lock_for_long, 1)
        if not inside.carry_out_on_postgres(rounds):
            print("PostgreSQL is not installed: it cannot go away")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "chaos.json", json.dumps(tally.to_dict(), indent=2).encode())
    print(tally.table())
    seconds, computed = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{seconds:.0f} s, of which {computed:.0f} s of this process's own")
    if tally.injected < WANTED:
        print(f"error: expected at least {WANTED} faults, but got {tally.injected}")
        return 1
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
