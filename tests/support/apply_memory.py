"""The memory of an owner that adds the change of a root, in a process of its own.

    python -m tests.support.apply_memory FOLDER

Prints JSON: case -> bytes beside what the process and the message took before.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.client.store.structure import Structure
from disinherit.common.deltas.packets import encode_delta
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb

WIDTH, DEPTH = 1536, 4
LARGEST = WIDTH * WIDTH * 4
MODEL = DEPTH * (LARGEST + WIDTH * 4)
"""Bytes of the largest tensor and of the model, in float32."""

CASES = {"one": 1, "three": 3, "measured": 1}
"""Case -> number of descendants in a message."""

_ANY = "0" * 64


class LargeOwner:
    """An owner of models that are large beside a process.

    Args:
        root: folder of its store.
        width: of its networks.

    Attributes:
        measures: whether it has data to measure them on.
    """

    def __init__(self, root: Path, width: int) -> None:
        self.width = width
        self.store = ModelStore(root, "large")
        self.device = torch.device("cpu")
        self.measures = False

    def network(self, record: ModelRecord | None) -> nn.Module:
        return nn.Sequential(*(nn.Linear(self.width, self.width) for _ in range(DEPTH)))

    def state(self) -> dict[str, Tensor]:
        """Weights of a new network."""
        return {name: value.detach() for name, value in self.network(None).state_dict().items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of its models."""
        return tuple(f"class-{number}" for number in range(self.width))

    def training_data(self, record: ModelRecord) -> Batches | None:
        return None

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        return None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        if not self.measures:
            return None
        return [(torch.randn(8, self.width), torch.arange(8))]


def main(arguments: Sequence[str]) -> int:
    """Measure each case, and print what it took."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    root = Path(arguments[0])
    _measure(LargeOwner(root / "small", 8))  # so that all code is loaded
    print(json.dumps(_measure(LargeOwner(root / "large", WIDTH))))
    return 0


def _measure(owner: LargeOwner) -> dict[str, int]:
    """Return case -> bytes beside what was taken before."""
    packet = _packet(owner)
    taken = {}
    for case, count in CASES.items():
        owner.measures = case == "measured"
        task = _task(packet, [_model(owner, f"{case}-{number}") for number in range(count)])
        before = _reset_peak()
        reply = unlearn(owner, task)
        taken[case] = _peak() - before
        for one in reply.models:
            assert one.outcome == pb.OUTCOME_APPLIED, one.error
            assert one.HasField("retain_after") == owner.measures
    return taken


def _packet(owner: LargeOwner) -> pb.FisherPacket:
    delta = pb.Delta(before=_ANY, after=_ANY, request_digest=_ANY, root_method="replay")
    return encode_delta(
        {name: torch.full_like(value, 1e-3) for name, value in owner.state().items()},
        labels=owner.labels,
        head_weight="",
        head_bias="",
        further_heads=(),
        source="root",
        samples=1,
        delta=delta,
    )


def _model(owner: LargeOwner, model_id: str) -> ModelRecord:
    weights = owner.state()
    architecture, digest = architecture_fingerprint(weights), weights_digest(weights)
    record = ModelRecord(model_id, "large", architecture, owner.labels, digest, 1)
    record = owner.store.add(record, weights)
    # As registration does, which alone makes passes to find the head.
    owner.store.set_structure(record.id, Structure(None, "no head was looked for", ()))
    return record


def _task(packet: pb.FisherPacket, records: Sequence[ModelRecord]) -> pb.UnlearnTask:
    method = Method(mechanism="delta", root_method="replay", scope="all", repair_steps=0)
    return pb.UnlearnTask(
        request_id="q",
        request_digest=_ANY,
        method=method.to_proto(),
        fishers=[packet],
        models=[
            pb.ModelTask(
                model_id=record.id,
                digest=record.digest,
                shares=[pb.Share(packet=0, coefficient=0.5)],
                created_us=9,
            )
            for record in records
        ],
    )


def _reset_peak() -> int:
    """Have the kernel count the peak anew, and return what is taken now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    # Freed memory goes back at once, so that the peak is what was in use together.
    if os.environ.get("MALLOC_MMAP_THRESHOLD_") is None:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(os.environ))
    sys.exit(main(sys.argv[1:]))
