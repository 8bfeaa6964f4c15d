"""Recognition of what is to be forgotten, and of what is to be kept, before and after.

It is measured whenever the owner has suitable data, also if the request does not ask for it: on the
evaluation split, the tuning split, or training data.  Classes are measured by accuracy, on splits
that show it: where the model recognises a class neither before nor after, nothing shows that it
forgot.  Samples are measured by their losses, and by how often the model names them by their own
labels: a model that never saw them treats them like other unseen samples of the same classes.
Without unseen samples, they are compared with retained training samples, which shows what is still
recognised and not what was forgotten.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from disinherit.client.outcome.class_counts import (
    FEWEST,
    BeforeAndAfter,
    ClassCount,
    ClassCounts,
    chance_margin,
)
from disinherit.client.outcome.sample_losses import (
    RetainedLoss,
    recognition_of_samples,
    retained_loss,
)
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.remaining import cleared_classes
from disinherit.common.graph.labels import has_classes
from disinherit.common.wire.recognition import TRAINING, recognises
from disinherit.v1 import unlearning_pb2 as pb


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
        undecided: classes to forget without data that decides whether they are forgotten, and
            classes cleared before without any data.
        loss: loss on retained data of a language model, whose accuracy says little; `None` for
            models with classes, and without data.
    """

    forget: pb.Recognition | None = None
    worst: str = ""
    retain_before: float | None = None
    retain_after: float | None = None
    retain_samples: int = 0
    destroyed: Mapping[str, ClassCount] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()
    loss: RetainedLoss | None = None

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
    counts = ClassCounts(owner, subject, tuple(gone))
    retain, forget, worst = counts.first(kept), None, ""
    if subject.forgotten:
        forget, worst = _of_classes(subject, counts, subject.forgotten)
    elif subject.samples is not None:
        forget = recognition_of_samples(owner, subject, subject.samples)
    again, name = _of_classes(subject, counts, sorted(cleared.difference(subject.forgotten)))
    if _recognises(again) and not _recognises(forget):
        forget, worst = again, name
    undecided = tuple(
        labels[c]
        for c in gone
        if (counts.deciding(c) is None if c not in cleared else not counts.first([c])[1])
    )
    total = sum(one.samples for one in retain[1].values())
    if not total:
        return Measured(forget, worst, undecided=undecided)
    return Measured(
        forget,
        worst,
        sum(one.before for one in retain[1].values()) / total,
        sum(one.after for one in retain[1].values()) / total,
        total,
        _destroyed(labels, counts, kept),
        undecided,
        None if has_classes(labels) else retained_loss(owner, subject),
    )


def _recognises(found: pb.Recognition | None) -> bool:
    return found is not None and recognises(found)


def _destroyed(
    labels: Sequence[str], counts: ClassCounts, kept: Sequence[int]
) -> dict[str, ClassCount]:
    """Return the kept classes that were known before and look forgotten afterwards.

    Samples or a client may be all that a model knows of a class.  So if these are to be forgotten,
    only classes with kept training samples count.
    """
    found = {c: next(counts.informative(c), None) for c in kept}
    lost = {c: one for c, one in found.items() if one is not None and one[1].lost}
    if lost and not counts.subject.forgotten:
        remaining = counts.remaining()
        lost = {
            c: (source, remaining[c] if source == TRAINING else one)
            for c, (source, one) in lost.items()
            if c in remaining and remaining[c].samples >= FEWEST
        }
    return {labels[c]: one for c, (_, one) in lost.items() if one.lost}


def _of_classes(
    subject: BeforeAndAfter, counts: ClassCounts, classes: Iterable[int]
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
