"""Trainings of a node's updates: what each began with, and with which configuration and data.

Beside the store of the owner's models, and like it for the owner's eyes only::

    trainings/<version>.json             configuration, and a digest of the data
    starts/<digest>.safetensors          weights that a training began with; rounds share them
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from disinherit.common.files import write_atomic
from disinherit.common.tensors.checkpoints import load_checkpoint, save_checkpoint

Config = Mapping[str, bool | float | int | str]


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of the training of one update.

    Attributes:
        start: digest of the weights that it began with.
        node_config: configuration of the node.
        run_config: configuration of the run.
        told: record of the message -> what the strategy told the node in this round.
        arrays: record of the message with the weights; empty if the message has others, too.
        states: of the random generators, when it began.
        data: digest of the samples, as `AppSamples.digest`; empty if they could not be read.
        positions: as `AppSamples.positions`; trainings of release 0.1.0 have none.
    """

    start: str
    node_config: Config
    run_config: Config
    told: Mapping[str, Mapping[str, Any]]
    arrays: str
    states: Mapping[str, Any]
    data: str
    positions: int | None = None


class Trainings:
    """The trainings of one node.

    Args:
        folder: of its models.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, version: str, training: Training, start: Mapping[str, Tensor]) -> None:
        """Keep a training, and the weights that it began with.

        Raises:
            CheckpointError: if the weights cannot be written.
            OSError: if the folder cannot be written to.
        """
        for name in ("starts", "trainings"):
            (self._folder / name).mkdir(exist_ok=True)
        if not self._start(training.start).exists():
            save_checkpoint(self._start(training.start), start)
        write_atomic(self._record(version), json.dumps(asdict(training), indent=1).encode())

    def find(self, version: str) -> Training | None:
        """Return the training of an update, also of what unlearning made of it; or `None`."""
        path = self._record(version.partition("~")[0])
        return Training(**json.loads(path.read_bytes())) if path.exists() else None

    def positions(self) -> int | None:
        """Return one more than the last position in any data; `None` where samples have ids."""
        kept = (json.loads(path.read_bytes()) for path in self._folder.glob("trainings/*.json"))
        sizes = [one.get("positions") for one in kept]
        return None if None in sizes else max(sizes, default=None)

    def start(self, training: Training) -> dict[str, Tensor] | None:
        """Return the weights that a training began with; `None` if they are gone.

        Raises:
            CheckpointError: if they are damaged.
        """
        path = self._start(training.start)
        return load_checkpoint(path, training.start) if path.exists() else None

    def _record(self, version: str) -> Path:
        return self._folder / "trainings" / f"{version}.json"

    def _start(self, digest: str) -> Path:
        return self._folder / "starts" / f"{digest}.safetensors"
