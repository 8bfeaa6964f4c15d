"""The change of a root added to models of several sizes, beside the bare work on their files.

message   what a message takes beside its descendants: its packet is checked and measured
one       each descendant more: from the question to the last commit
clock     the same on the clock, on which the disk is waited for
files     its floor: a file of the size of the weights read, hashed, written as another one and
          synced, in pieces of a megabyte: no change, no second hash, no ledger
bound     to read the weights and the change in memory, and to write the weights
memory    the most beyond the message, which has the change in it: of one, and of all

Milliseconds of CPU on one thread, bytes of files for each byte of the weights, megabytes.
"""

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from inheriting_fleet import file_bytes
from many_models import LABELS, PlainOwner
from measuring import Claim, Figures, arguments, copy_rate, peak_bytes, report
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.store.structure import Structure
from disinherit.common.deltas.packets import encode_delta
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb

LAYERS = 8
_ANY = "0" * 64
_PIECE = 1 << 20


SIZES = ((112, 21), (354, 11), (1118, 6), (2500, 4))
"""Width of the square layers of a model, and number of descendants in a message."""


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows: list[Figures] = []
    claims: list[Claim] = []
    sizes, repeats = (((64, 3), (354, 3)), 1) if options.reduced else (SIZES, 3)
    with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
        passes = [Passes(Path(folder) / str(width), width, count) for width, count in sizes]
        rows = [one.measure(repeats) for one in passes]
        for row, one in zip(rows, passes, strict=True):  # not before: it slows the allocator down
            row |= one.memory()
    fixed, each = law([(one.bytes, row["one"]) for one, row in zip(passes, rows, strict=True)])
    largest, row = passes[-1], rows[-1]
    name = f"{largest.parameters:,} parameters"
    most = largest.bytes + 1.2 * largest.largest
    claims = [
        Claim(10, "fixed part of a descendant, ms", fixed),
        Claim(10, "each MB of a descendant's weights, ms", 1e6 * each),
        Claim(10, "MB of weights that take as long as the fixed part", fixed / each / 1e6),
        Claim(10, f"one descendant / memory bound, {name}", row["one / bound"], 2, limit=1.0),
        Claim(
            10, f"one descendant / its file read, hashed, written, synced, {name}", row["/ files"]
        ),
        Claim(
            10,
            f"bytes of files read and written / bytes of weights, {name}",
            row["read"] + row["written"],
            at_most=2.2,
            limit=2.0,
        ),
        Claim(
            10,
            f"peak memory of {row['descendants']} descendants / of 1, {name}",
            row["MB"] / row["MB of 1"],
            at_most=1.2,
        ),
        Claim(
            10,
            f"peak memory / model and 1.2 times its largest tensor, {name}",
            1e6 * row["MB"] / most,
            at_most=1.0,
        ),
    ]
    report(options, "inheriting_sizes", "A descendant more, by its size", rows, claims)


class _Pass(NamedTuple):
    """What a message about several models takes: seconds, and bytes of files."""

    cpu: float
    clock: float
    read: float
    written: float

    def until(self, more: "_Pass", descendants: int) -> "_Pass":
        """Return what each of some more descendants takes."""
        return _Pass(*((b - a) / descendants for a, b in zip(self, more, strict=True)))


class Passes:
    """Models of one size in a store, and the change of a root that they descend from.

    Args:
        folder: a folder to make.
        width: of each of their layers, all of which are square.
        count: number of models.

    Attributes:
        bytes: of the weights of one.
        parameters: number of its weights.
        largest: bytes of its largest tensor.
    """

    def __init__(self, folder: Path, width: int, count: int) -> None:
        folder.mkdir()
        self._folder, self._width, self._count = folder, width, count
        self._root = {n: v.detach() for n, v in self._network().state_dict().items()}
        self.bytes = sum(value.nbytes for value in self._root.values())
        self.parameters = self.bytes // 4
        self.largest = max(value.nbytes for value in self._root.values())
        owner = self._owner()
        with mock.patch("os.fsync"):  # making the models is not what is measured
            self._records = [self._add(owner, number) for number in range(count)]
        owner.store.close()
        shutil.copy(folder / "owner" / "index.db", folder / "index.db")
        self._packet = encode_delta(
            {name: torch.full_like(value, 1e-3) for name, value in self._root.items()},
            labels=LABELS,
            head_weight="",
            head_bias="",
            further_heads=(),
            source="root",
            samples=1,
            delta=pb.Delta(before=_ANY, after=_ANY, request_digest=_ANY, root_method="replay"),
        )

    def measure(self, repeats: int) -> Figures:
        """Return a row about them, without memory."""
        few, more = ([self._pass(count) for _ in range(repeats + 1)] for count in (1, self._count))
        least, most = (
            _Pass(*map(statistics.median, zip(*taken[1:], strict=True))) for taken in (few, more)
        )
        one = least.until(most, self._count - 1)
        files = statistics.median(self._files() for _ in range(repeats + 1))
        bound = 3 * self.bytes / copy_rate()
        return {
            "parameters": f"{self.parameters:,}",
            "descendants": self._count,
            "message": 1000 * (least.cpu - one.cpu),
            "one": 1000 * one.cpu,
            "clock": 1000 * one.clock,
            "files": 1000 * files,
            "bound": 1000 * bound,
            "/ files": one.cpu / files,
            "one / bound": one.cpu / bound,
            "read": one.read / self.bytes,
            "written": one.written / self.bytes,
        }

    def memory(self) -> Figures:
        """Return how much memory one of them takes, and all of them."""
        tasks = {count: self._task(count) for count in (1, self._count)}
        taken = {n: peak_bytes(partial(self._anew, task)) for n, task in tasks.items()}
        return {
            "MB of weights": self.bytes / 1e6,
            "MB of 1": taken[1] / 1e6,
            "MB": taken[self._count] / 1e6,
        }

    def _pass(self, count: int) -> "_Pass":
        """Add the change to so many models, as if it had not been done before."""
        self._begin_anew()
        self._owner().store.close()  # removes the successors of the last time
        task, before = self._task(count), file_bytes()
        clock, cpu = time.perf_counter(), time.process_time()
        self._unlearn(self._owner(), task)
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        read, written = (now - then for now, then in zip(file_bytes(), before, strict=True))
        return _Pass(cpu, clock, read, written)

    def _files(self) -> float:
        """Return the CPU seconds to read, hash, write and sync a file as large as the weights."""
        source, target = self._folder / "weights", self._folder / "copy"
        if not source.exists():
            source.write_bytes(b"".join(value.numpy().tobytes() for value in self._root.values()))
        started, digest = time.process_time(), hashlib.sha256()
        with source.open("rb", 0) as file, target.open("wb", 0) as copied:
            while piece := file.read(_PIECE):
                digest.update(piece)
                copied.write(piece)
            os.fsync(copied.fileno())
        seconds = time.process_time() - started
        target.unlink()
        return seconds

    def _unlearn(self, owner: PlainOwner, task: pb.UnlearnTask) -> None:
        done = unlearn(owner, task).models
        owner.store.close()
        if not all(result.HasField("successor") for result in done):
            raise RuntimeError(f"Expected all models to be unlearned in, but: {done[0].error}")

    def _anew(self, task: pb.UnlearnTask) -> None:
        self._begin_anew()
        self._unlearn(self._owner(), task)

    def _begin_anew(self) -> None:
        shutil.copy(self._folder / "index.db", self._folder / "owner" / "index.db")

    def _owner(self) -> PlainOwner:
        with torch.device("meta"):  # no values are needed of it
            return PlainOwner(self._folder / "owner", self._network())

    def _network(self) -> nn.Module:
        width = self._width
        return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))

    def _add(self, owner: PlainOwner, number: int) -> ModelRecord:
        weights: dict[str, Tensor] = {
            name: value + 0.01 * torch.randn(value.shape) for name, value in self._root.items()
        }
        record = ModelRecord(
            id=f"child-{number}",
            owner=owner.store.owner,
            architecture=architecture_fingerprint(weights),
            labels=LABELS,
            digest=weights_digest(weights),
            created_us=1,
        )
        added = owner.store.add(record, weights)
        owner.store.set_structure(record.id, Structure(None, "no head was looked for", ()))
        return added

    def _task(self, count: int) -> pb.UnlearnTask:
        method = Method(mechanism="delta", root_method="replay", scope="all", repair_steps=0)
        return pb.UnlearnTask(
            request_id="q",
            request_digest=_ANY,
            method=method.to_proto(),
            fishers=[self._packet],
            models=[
                pb.ModelTask(
                    model_id=record.id,
                    digest=record.digest,
                    shares=[pb.Share(packet=0, coefficient=0.5)],
                    created_us=10**9,
                )
                for record in self._records[:count]
            ],
        )


def law(sizes: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the fixed time of a descendant and that of each byte, by the least and largest model.

    Args:
        sizes: bytes of weights and time of a descendant, for several sizes.
    """
    (small, least), (large, most) = min(sizes), max(sizes)
    each = (most - least) / (large - small)
    return least - each * small, each


if __name__ == "__main__":
    main()
