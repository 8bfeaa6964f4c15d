"""Classes of the samples of a batch, and which samples belong to each."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

Run = tuple[int, int, int]
"""A class, and its first sample and the one after its last, of samples in the order of classes."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The class that counts each sample.

    Attributes:
        values: `[n]` int64, on the device of the batch.
        runs: of samples in the order of their classes, those of each; `None` in any other order.
            An accelerator then need not be asked, and waited for, which samples a class has.
    """

    values: Tensor
    runs: tuple[Run, ...] | None = None

    def part(self, rows: slice) -> "Groups":
        """Return the groups of some samples in a row."""
        start, stop, _ = rows.indices(len(self.values))
        runs = self.runs and tuple(
            (label, max(first, start) - start, min(end, stop) - start)
            for label, first, end in self.runs
            if first < stop and start < end
        )
        return Groups(self.values[rows], runs)

    def each(self) -> Iterator[tuple[int, Tensor | slice]]:
        """Yield each class that has samples, and an index of them."""
        if self.runs is not None:
            yield from ((label, slice(start, stop)) for label, start, stop in self.runs)
            return
        for label in self.values.unique().tolist():
            yield label, self.values == label


def runs_of(labels: Tensor) -> tuple[Run, ...]:
    """Return the runs of labels in ascending order, `[n]` int64 on the CPU.

    Example:
        >>> runs_of(Tensor([0, 0, 3]).long())
        ((0, 0, 2), (3, 2, 3))
    """
    classes, counts = labels.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    starts = ends - counts
    return tuple(zip(classes.tolist(), starts.tolist(), ends.tolist(), strict=True))
