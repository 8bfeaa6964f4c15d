"""Recognition of what is to be forgotten, and of what is to be kept, before and after.

It is measured whenever the owner has suitable data, also if the request does not ask for it: on the
evaluation split, the tuning split, or training data.  Classes are measured by accuracy, on splits
that tell: where the model recognises a class neither before nor after, nothing shows that it
forgot.  Samples are measured by their losses, and by how often the model names them by their own
labels: a model that never saw them treats them like other unseen samples of the same classes.
Without unseen samples, they are compared with retained training samples, which shows what is still
recognised and not what was forgotten.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.owner.batches import ShrinkingBatches, check_logits
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.client.privacy.remaining import (
    OnlyClasses,
    cleared_classes,
    evaluation_data,
    training_data,
    tuning_data,
)
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, as_arguments, take_rows, to_device
from disinherit.common.wire.recognition import TRAINING, had_power, recognises
from disinherit.v1 import unlearning_pb2 as pb

TOLERANCE = 0.05
"""Share of a class's samples that may still be classified correctly, beyond chance."""

KNOWN = 0.5
"""Least share of a kept class's samples that a model classifies correctly if it knows the class."""

_FEWEST = 6
"""Fewest samples that show a class to be lost: fewer may all be lost by chance."""

_ONE_SIDED = 1.645
"""Standard deviations that chance exceeds in one of twenty cases."""

_TRAINING_SAMPLES = 5_000
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
    def tells(self) -> bool:
        """Whether the class was recognised before or afterwards; if not, labels may be wrong."""
        return self.beyond_chance(max(self.before, self.after))

    @property
    def lost(self) -> bool:
        """Whether the class was known before and looks forgotten afterwards."""
        return (
            self.samples >= _FEWEST
            and self.before >= KNOWN * self.samples
            and not self.beyond_chance(self.after)
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurement of a model before and after, on the owner's data.

    Attributes:
        forget: recognition of what is to be forgotten; `None` without suitable data.
        worst: the class to forget with the best recognition afterwards; `""` for samples.  It is
            one that an earlier request cleared if the model recognises that one again.
        retain_before: accuracy on retained data before; `None` without suitable data.
        retain_after: accuracy on retained data after.
        retain_samples: number of samples of both accuracies.
        destroyed: kept classes that the model knew before, and recognises no more than a forgotten
            one.
        untold: classes to forget without data that tells, and classes cleared before without any.
    """

    forget: pb.Recognition | None = None
    worst: str = ""
    retain_before: float | None = None
    retain_after: float | None = None
    retain_samples: int = 0
    destroyed: Mapping[str, ClassCount] = field(default_factory=dict)
    untold: tuple[str, ...] = ()

    @property
    def recognises(self) -> bool:
        """Whether the model recognises what is to be forgotten beyond chance."""
        return _recognises(self.forget)

    @property
    def retain_drop(self) -> float:
        """Lost accuracy on retained data, in percentage points; 0 if unknown."""
        if self.retain_before is None or self.retain_after is None:
            return 0.0
        return 100 * (self.retain_before - self.retain_after)


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
    """

    record: ModelRecord
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    forgotten: tuple[int, ...] = ()
    samples: Batches | None = None
    kept: Batches | None = None


def measure(owner: Owner, subject: BeforeAndAfter) -> Measured:
    """Measure a model before and after on its owner's data.

    Args:
        owner: the owner of the model.
        subject: the model.

    Raises:
        CheckpointError: if the weights do not fit the owner's network.
        DataError: if the owner cannot leave out samples that were forgotten earlier.
    """
    labels = subject.record.labels
    cleared = set(cleared_classes(owner, subject.record, effective=True))
    gone = sorted(cleared.union(subject.forgotten))
    kept = [c for c in range(len(labels)) if c not in gone]
    counts = _Counts(owner, subject, tuple(gone))
    retain, forget, worst = counts.first(kept), None, ""
    if subject.forgotten:
        forget, worst = _of_classes(subject, counts, subject.forgotten)
    elif subject.samples is not None:
        forget = _of_samples(owner, subject, subject.samples)
    again, name = _of_classes(subject, counts, sorted(cleared.difference(subject.forgotten)))
    if _recognises(again) and not _recognises(forget):
        forget, worst = again, name
    untold = tuple(
        labels[c]
        for c in gone
        if (counts.deciding(c) is None if c not in cleared else not counts.first([c])[1])
    )
    total = sum(one.samples for one in retain[1].values())
    if not total:
        return Measured(forget, worst, untold=untold)
    return Measured(
        forget,
        worst,
        sum(one.before for one in retain[1].values()) / total,
        sum(one.after for one in retain[1].values()) / total,
        total,
        _destroyed(labels, counts, kept),
        untold,
    )


def _recognises(found: pb.Recognition | None) -> bool:
    return found is not None and recognises(found)


def _destroyed(
    labels: Sequence[str], counts: "_Counts", kept: Sequence[int]
) -> dict[str, ClassCount]:
    """Return the kept classes that were known before and look forgotten afterwards.

    Samples or a client may be all that a model knows of a class.  So if these are to be forgotten,
    only classes with kept training samples count.
    """
    told = {c: next(counts.telling(c), None) for c in kept}
    lost = {c: one for c, one in told.items() if one is not None and one[1].lost}
    if lost and not counts.subject.forgotten:
        remaining = counts.remaining()
        lost = {
            c: (source, remaining[c] if source == TRAINING else one)
            for c, (source, one) in lost.items()
            if c in remaining and remaining[c].samples >= _FEWEST
        }
    return {labels[c]: one for c, (_, one) in lost.items() if one.lost}


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
    return min(1.0, tolerance + _ONE_SIDED * spread)


def auc_margin(forgotten: int, unseen: int) -> float:
    """Return how far chance may raise the AUC of two equal distributions above one half.

    Example:
        >>> auc_margin(1, 1), round(auc_margin(200, 200), 3)
        (0.5, 0.048)
    """
    spread = math.sqrt((forgotten + unseen + 1) / (12 * forgotten * unseen))
    return min(0.5, _ONE_SIDED * spread)


@dataclass(slots=True, eq=False)
class _Counts:
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

    def telling(
        self, index: int, sources: Sequence[str] = _SPLITS
    ) -> Iterator[tuple[str, ClassCount]]:
        """Yield the splits that tell what a model forgot of a class, the best first, with counts.

        One on which the model recognises the class neither before nor after cannot tell: its labels
        may be wrong.
        """
        for source in sources:
            one = self._of(source).get(index)
            if one is not None and one.tells:
                yield source, one

    def deciding(self, index: int) -> tuple[str, ClassCount] | None:
        """Return the split that decides whether a class is forgotten, and its counts.

        That is the first on which it is still recognised; without any, the first with enough
        samples, or else that with most.  Training data is read only if the others have too few:
        a pass over it can take longer than all else.
        """
        found = [*self.telling(index, _SPLITS[:-1])]
        if all(one.samples < _FEWEST for _, one in found):
            found += self.telling(index, (TRAINING,))
        known = [one for one in found if one[1].beyond_chance(one[1].after)]
        enough = [one for one in found if one[1].samples >= _FEWEST]
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
        return max(20, _TRAINING_SAMPLES // len(self.subject.record.labels))

    def _count(self, source: str) -> dict[int, ClassCount]:
        batches = _split(self.owner, self.subject.record, source, self.gone)
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


def _split(
    owner: Owner, record: ModelRecord, source: str, keep: Iterable[int] = ()
) -> Batches | None:
    if source == "training":
        return training_data(owner, record, keep)
    return (evaluation_data if source == "evaluation" else tuning_data)(owner, record, keep)


def _of_classes(
    subject: BeforeAndAfter, counts: _Counts, classes: Iterable[int]
) -> tuple[pb.Recognition | None, str]:
    """Return the accuracy on the class with the best recognition afterwards, and its name."""
    found: list[tuple[float, str, pb.Recognition]] = []
    for index in classes:
        decided = counts.deciding(index)
        if decided is None:
            continue
        source, one = decided
        margin = chance_margin(one.samples)
        recognition = pb.Recognition(
            measure="accuracy",
            before=one.before / one.samples,
            after=one.after / one.samples,
            floor=0.0,
            margin=margin,
            samples=one.samples,
            source=source,
        )
        excess = recognition.after - margin
        found.append((excess, subject.record.labels[index], recognition))
    if not found:
        return None, ""
    _, worst, recognition = max(found, key=lambda one: one[:2])
    return recognition, worst


def _of_samples(owner: Owner, subject: BeforeAndAfter, samples: Batches) -> pb.Recognition | None:
    """Return the AUC: how often a sample to forget has a smaller loss than an unseen one.

    Both are of the same class.  Without unseen samples, retained training samples take their place:
    a model that never saw the samples to forget would have larger losses on them than on these.
    The share that the model names by their own labels is measured, too.
    """
    classes = frozenset(int(c) for _, targets in samples for c in targets.unique())
    for source in ("evaluation", "tuning", TRAINING):
        if source == TRAINING:
            batches, most = subject.kept, _TRAINING_SAMPLES
        else:
            batches, most = _split(owner, subject.record, source), None
        others = None if batches is None else OnlyClasses(batches, classes, most)
        if others is None or not any(True for _ in others):
            continue
        pairs = [
            tuple(_scores(owner, subject.record, weights, some) for some in (samples, others))
            for weights in (subject.before, subject.after)
        ]
        (before, _), (after, unseen) = pairs
        aucs = [_auc(forgotten.losses, compared.losses) for forgotten, compared in pairs]
        found = pb.Recognition(
            measure="auc",
            before=aucs[0],
            after=aucs[1],
            floor=0.5,
            margin=auc_margin(len(after.losses), len(unseen.losses)),
            samples=len(after.losses),
            source=source,
            loss_before=float(before.losses.mean()),
            loss_after=float(after.losses.mean()),
            named_before=float(before.named.mean()),
            named_after=float(after.named.mean()),
        )
        found.named_chance = _named_chance(found, after, unseen)
        return found
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """What a model makes of samples.

    Attributes:
        losses: cross-entropies `[n]`, in float64.
        named: 1 where the model names a sample by its own label, else 0 `[n]`, in float64.
        targets: their class indices `[n]`.
    """

    losses: Tensor
    named: Tensor
    targets: Tensor


def _named_chance(found: pb.Recognition, forgotten: _Scores, unseen: _Scores) -> float:
    """Return the largest share of samples to forget that chance explains the model to name.

    If the attack had power, a model that never saw the samples names them as often as unseen ones
    of their classes.  Otherwise their labels may be wrong, and it names them like a class that it
    does not know.
    """
    if not had_power(found):
        return chance_margin(found.samples)
    means, weights = [], []
    for c in forgotten.targets.unique():
        peers = unseen.named[unseen.targets == c]
        if len(peers):
            means.append(peers.mean())
            weights.append((forgotten.targets == c).sum())
    share = float(torch.stack(means) @ torch.stack(weights).double() / sum(weights))
    count = len(unseen.named)
    both = max(1, found.samples * count // (found.samples + count))
    return chance_margin(both, max(share, TOLERANCE))


def _scores(
    owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor], batches: Batches
) -> _Scores:
    """Return what a model makes of samples."""
    network = load_network(owner, record, weights)

    @torch.inference_mode()
    def compute(fitting: Iterable[tuple[Inputs, Tensor]]) -> _Scores:
        losses, named, seen = [], [], []
        for inputs, targets in fitting:
            logits = network(*to_device(as_arguments(inputs), owner.device))
            check_logits(logits, targets.cpu(), len(record.labels))
            logits, wanted = logits.cpu().double(), targets.cpu()
            losses.append(F.cross_entropy(logits, wanted, reduction="none"))
            named.append((logits.argmax(dim=1) == wanted).double())
            seen.append(wanted)
        return _Scores(torch.cat(losses), torch.cat(named), torch.cat(seen))

    return ShrinkingBatches(batches).run(compute)


def _auc(forgotten: Tensor, others: Tensor) -> float:
    ordered = others.sort().values
    larger = len(ordered) - torch.searchsorted(ordered, forgotten, right=True)
    equal = torch.searchsorted(ordered, forgotten, right=True) - torch.searchsorted(
        ordered, forgotten
    )
    return float((larger + equal / 2).double().mean() / len(ordered))
