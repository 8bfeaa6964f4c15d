"""Counts of the samples of classes that a model classifies correctly, before and after."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from disinherit.client.owner.batches import ShrinkingBatches, check_logits
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.client.privacy.remaining import evaluation_data, training_data, tuning_data
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, take_rows, to_device
from disinherit.common.models.membership import ONE_SIDED
from disinherit.common.wire.recognition import TRAINING

TOLERANCE = 0.05
"""Share of a class's samples that may still be classified correctly, beyond chance."""

KNOWN = 0.5
"""Least share of a kept class's samples that a model classifies correctly if it knows the class."""

FEWEST = 6
"""Fewest samples that show a class to be lost: fewer may all be lost by chance."""

TRAINING_SAMPLES = 5_000
"""Most training samples to measure on; other splits are used whole."""

_SPLITS = ("evaluation", "tuning", TRAINING)
"""Splits of an owner for classes, the best first."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Number of a class's samples classified correctly, before and after."""

    samples: int
    before: int
    after: int

    def beyond_chance(self, right: int) -> bool:
        """Whether that many correct samples are more than chance and tolerance explain."""
        return right > (chance_margin(self.samples) + 1e-9) * self.samples

    @property
    def informative(self) -> bool:
        """Whether the class was recognised before or after; if not, its labels may be wrong."""
        return self.beyond_chance(max(self.before, self.after))

    @property
    def lost(self) -> bool:
        """Whether the class was known before and looks forgotten afterwards."""
        return (
            self.samples >= FEWEST
            and self.before >= KNOWN * self.samples
            and not self.beyond_chance(self.after)
        )


@dataclass(frozen=True, slots=True, eq=False)
class BeforeAndAfter:
    """A model before and after.

    Attributes:
        record: the version.
        before: its weights.
        after: its new weights.
        forgotten: indices of the model's classes to forget; empty for samples.
        samples: batches of the samples to forget, with its own class indices; `None` without any.
        kept: batches of retained training samples; `None` without any.
        exact: whether the new weights count as those of training without the samples, so that it is
            measured, too, what would contradict that.
    """

    record: ModelRecord
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    forgotten: tuple[int, ...] = ()
    samples: Batches | None = None
    kept: Batches | None = None
    exact: bool = False


def chance_margin(samples: int, tolerance: float = TOLERANCE) -> float:
    """Return the accuracy on a forgotten class that chance and tolerance explain.

    Args:
        samples: number of samples of the class.
        tolerance: share of samples that may be classified correctly anyway.

    Example:
        >>> round(chance_margin(1), 2), round(chance_margin(1000), 2)
        (0.41, 0.06)
    """
    spread = math.sqrt(tolerance * (1 - tolerance) / samples)
    return min(1.0, tolerance + ONE_SIDED * spread)


@dataclass(slots=True, eq=False)
class ClassCounts:
    """Counts on the splits of an owner, computed on first use.

    Attributes:
        owner: the owner.
        subject: the model.
        gone: classes to forget or cleared before, which are counted, too.
        known: split -> class -> its counts.
    """

    owner: Owner
    subject: BeforeAndAfter
    gone: tuple[int, ...]
    known: dict[str, dict[int, ClassCount]] = field(default_factory=dict)

    def first(self, classes: Sequence[int]) -> tuple[str, dict[int, ClassCount]]:
        """Return the first split with samples of the given classes, and its counts."""
        for source in _SPLITS:
            found = {c: one for c, one in self._of(source).items() if c in classes}
            if found:
                return source, found
        return "", {}

    def informative(
        self, index: int, sources: Sequence[str] = _SPLITS
    ) -> Iterator[tuple[str, ClassCount]]:
        """Yield the splits that show whether a model forgot a class, the best first, with counts.

        One on which the model recognises the class neither before nor after is left out: its labels
        may be wrong.
        """
        for source in sources:
            one = self._of(source).get(index)
            if one is not None and one.informative:
                yield source, one

    def deciding(self, index: int) -> tuple[str, ClassCount] | None:
        """Return the split that decides whether a class is forgotten, and its counts.

        That is the first on which it is still recognised; without any, the first with enough
        samples, or else that with most.  Training data is read only if the others have too few:
        a pass over it can take longer than all else.
        """
        found = [*self.informative(index, _SPLITS[:-1])]
        if all(one.samples < FEWEST for _, one in found):
            found += self.informative(index, (TRAINING,))
        known = [one for one in found if one[1].beyond_chance(one[1].after)]
        enough = [one for one in found if one[1].samples >= FEWEST]
        for one in (*known, *enough):
            return one
        return max(found, key=lambda one: one[1].samples, default=None)

    def remaining(self) -> dict[int, ClassCount]:
        """Return the counts on the training samples that are kept."""
        kept = self.subject.kept
        return self._of(TRAINING) if kept is None else self._compare(kept, self._most)

    def _of(self, source: str) -> dict[int, ClassCount]:
        if source not in self.known:
            self.known[source] = self._count(source)
        return self.known[source]

    @property
    def _most(self) -> int:
        """Most training samples of a class to measure on."""
        return max(20, TRAINING_SAMPLES // len(self.subject.record.labels))

    def _count(self, source: str) -> dict[int, ClassCount]:
        batches = find_split(self.owner, self.subject.record, source, self.gone)
        if batches is None:
            return {}
        return self._compare(batches, self._most if source == TRAINING else None)

    def _compare(self, batches: Batches, most: int | None) -> dict[int, ClassCount]:
        before = self._right(self.subject.before, batches, most)
        after = self._right(self.subject.after, batches, most)
        return {
            c: ClassCount(samples, before[c][1], after[c][1])
            for c, (samples, _) in before.items()
            if c in after
        }

    def _right(
        self, weights: Mapping[str, Tensor], batches: Batches, most: int | None
    ) -> dict[int, tuple[int, int]]:
        """Return class -> number of samples, and number classified correctly."""
        network = load_network(self.owner, self.subject.record, weights)
        device, classes = self.owner.device, len(self.subject.record.labels)

        @torch.inference_mode()
        def count(fitting: Iterable[tuple[Inputs, Tensor]]) -> tuple[Tensor, Tensor]:
            seen = torch.zeros(classes, dtype=torch.int64)
            right = torch.zeros(classes, dtype=torch.int64)
            for inputs, targets in fitting:
                chosen = _up_to(targets.cpu(), seen, most)
                if not len(chosen):
                    continue
                logits = network(*to_device(take_rows(inputs, chosen), device))
                wanted = targets.cpu()[chosen]
                check_logits(logits, wanted, classes)
                seen += torch.bincount(wanted, minlength=classes)
                named = wanted[logits.argmax(dim=1).cpu() == wanted]
                right += torch.bincount(named, minlength=classes)
            return seen, right

        seen, right = ShrinkingBatches(batches).run(count)
        return {c: (int(seen[c]), int(right[c])) for c in seen.nonzero().flatten().tolist()}


def _up_to(targets: Tensor, seen: Tensor, most: int | None) -> Tensor:
    """Return a mask of the samples to use: at most `most` of each class."""
    if most is None:
        return torch.arange(len(targets))
    left = {c: most - int(seen[c]) for c in targets.unique().tolist()}
    chosen = []
    for position, target in enumerate(targets.tolist()):
        if left[target] > 0:
            chosen.append(position)
            left[target] -= 1
    return torch.tensor(chosen, dtype=torch.int64)


def find_split(
    owner: Owner, record: ModelRecord, source: str, keep: Iterable[int] = ()
) -> Batches | None:
    """Return the data of a split, without what was forgotten earlier; `None` without any.

    Args:
        owner: the owner of the model.
        record: the model.
        source: the split: `evaluation`, `tuning` or `training`.
        keep: indices of classes that are kept in it although they were forgotten.

    Raises:
        DataError: if the owner cannot leave out samples that were forgotten earlier.
    """
    if source == "training":
        return training_data(owner, record, keep)
    return (evaluation_data if source == "evaluation" else tuning_data)(owner, record, keep)
