"""What a run has finished, in a folder, so that a run that was stopped goes on where it was."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.files import write_atomic
from disinherit.simulations.family.language_model import CPU, Weights
from disinherit.simulations.family.members import MEMBERS, Family, Size, derive

_START, _HALFWAY = "start", "halfway"
_SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Finished:
    """Trained families and figures of one seed.

    Attributes:
        folder: where they are; nothing is kept without one.
        plan: what decides them, as text; a folder has those of one plan.
        device: where weights are to be.
    """

    folder: Path | None
    plan: str = ""
    device: torch.device = CPU

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        file = self.folder / "plan.txt"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(file, self.plan.encode())
        elif file.read_text("utf-8") != self.plan:
            raise DataError(
                f"Expected what a run with {self.plan} has finished in {self.folder}, but got that "
                "of another. Name another folder."
            )

    def family(self, name: str, make: Callable[[], Family]) -> Family:
        """Return a family, trained now or before.

        Args:
            name: of its file.
            make: trains it.

        Raises:
            DataError: if the file is damaged.
        """
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.safetensors"
        about = file.with_suffix(".json")
        if about.exists():  # it is written last
            return self._read(file, about)
        family = make()
        trained = {m: family.weights[m] for m, one in MEMBERS.items() if one.recipe is None}
        made = {_START: family.start, _HALFWAY: family.halfway, **trained}
        tensors = {
            f"{member}{_SEPARATOR}{key}": value.cpu().contiguous()
            for member, weights in made.items()
            for key, value in weights.items()
        }
        write_atomic(file, save(tensors))
        described = {
            "size": asdict(family.size),
            "vocabulary": family.vocabulary,
            "base_seconds": family.base_seconds,
            "seconds": family.seconds,
            "cpu_seconds": family.cpu_seconds,
        }
        write_atomic(about, json.dumps(described).encode())
        return family

    def tensors(self, name: str, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Return tensors by name, computed now or before; arguments and errors as of `family`."""
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            write_atomic(file, save({key: one.contiguous() for key, one in make().items()}))
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise _damaged(file, error) from None

    def figures(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return figures, measured now or before.

        Args:
            name: of their file.
            make: measures them.

        Raises:
            DataError: if the file is damaged.
        """
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_atomic(file, json.dumps(make()).encode())
        try:
            found: dict[str, Any] = json.loads(file.read_bytes())
        except ValueError as error:
            raise _damaged(file, error) from None
        return found

    def _read(self, file: Path, about: Path) -> Family:
        try:
            described = json.loads(about.read_bytes())
            size = Size(**described.pop("size"))
            tensors = load_file(file, str(self.device))
        except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
            raise _damaged(file, error) from None
        weights: dict[str, Weights] = {}
        for name in sorted(tensors):
            member, _, key = name.partition(_SEPARATOR)
            weights.setdefault(member, {})[key] = tensors[name]
        start, halfway = weights.pop(_START), weights.pop(_HALFWAY)
        return derive(Family(size, weights=weights, start=start, halfway=halfway, **described))


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(
        f"Expected what a run has finished in {file}, but got {error}. Remove the file: what it "
        "has is made again."
    )
