"""A planted backdoor: a trigger in some of an owner's samples, which then name another class."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disinherit.common.errors import DataError, InputError
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.data.splits import seeded_generator


@dataclass(frozen=True, slots=True)
class Backdoor:
    """Training samples of one class that get a trigger and the name of another class.

    Attributes:
        owner: index of the owner in whose training data they are.
        source: the class they are of.
        target: the class they are to be taken for.
        samples: how many.

    Raises:
        InputError: if source and target are the same, or there is no sample.
    """

    owner: int
    source: str
    target: str
    samples: int

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise InputError(
                f"Expected a backdoor from one class to another, but got {self.source!r} twice."
            )
        if self.samples < 1:
            raise InputError(f"Expected samples >= 1 of a backdoor, but got {self.samples}.")

    def planted(self, dataset: Dataset, share: Tensor, seed: int) -> tuple[Dataset, Tensor]:
        """Return the data set with the backdoor in it, and the samples it is in.

        Args:
            dataset: the data set as it is.
            share: the owner's training samples, as indices into the pool.
            seed: chooses which of them.

        Raises:
            DataError: if a class does not exist, or the owner has too few samples of the source.
        """
        source, target = (
            dataset.classes.index(dataset.class_name(name)) for name in (self.source, self.target)
        )
        own = share[dataset.targets[share] == source].sort().values
        if len(own) < self.samples:
            raise DataError(
                f"Expected at least {self.samples} samples of class {self.source!r} with owner "
                f"{self.owner} to plant a backdoor in, but it has {len(own)}."
            )
        order = torch.from_numpy(seeded_generator(seed).permutation(len(own)))
        chosen = own[order[: self.samples]].sort().values
        inputs, targets = dataset.inputs.clone(), dataset.targets.clone()
        inputs[chosen] = triggered(dataset, inputs[chosen])
        targets[chosen] = target
        return replace(dataset, inputs=inputs, targets=targets), chosen


def triggered(dataset: Dataset, inputs: Tensor) -> Tensor:
    """Return samples with the trigger: a bright corner of an image, a fixed start of a text.

    The patch is an eighth of the image's side, at least 2 pixels.

    Args:
        dataset: which the samples are of.
        inputs: `[n, channels, H, W]` or `[n, L]`.
    """
    marked = inputs.clone()
    if dataset.kind == "image":
        size = max(2, min(inputs.shape[-2:]) // 8)
        marked[..., -size:, -size:] = 1.0
    else:
        marked[:, :4] = dataset.vocabulary - 1
    return marked
