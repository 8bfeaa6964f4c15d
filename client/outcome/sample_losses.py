"""Recognition of samples by their losses, and by the labels that a model gives them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.outcome.class_counts import (
    TOLERANCE,
    TRAINING_SAMPLES,
    BeforeAndAfter,
    chance_margin,
    find_split,
)
from disinherit.client.owner.batches import ShrinkingBatches, check_logits
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.client.privacy.remaining import OnlyClasses
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, as_arguments, to_device
from disinherit.common.models.membership import (
    area_under_curve,
    auc_margin,
    confidence,
    found_by_losses,
)
from disinherit.common.wire.recognition import FALSE_ALARMS, TRAINING, had_power
from disinherit.v1 import unlearning_pb2 as pb


def recognition_of_samples(
    owner: Owner, subject: BeforeAndAfter, samples: Batches
) -> pb.Recognition | None:
    """Return the AUC: how often a sample to forget has a smaller loss than an unseen one.

    Both are of the same class.  Without unseen samples, retained training samples take their place:
    a model that never saw the samples to forget would have larger losses on them than on these.
    The share that the model names by their own labels is measured, too.
    """
    classes = frozenset(int(c) for _, targets in samples for c in targets.unique())
    for source in ("evaluation", "tuning", TRAINING):
        if source == TRAINING:
            batches, most = subject.kept, TRAINING_SAMPLES
        else:
            batches, most = find_split(owner, subject.record, source), None
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
        _set_found(found, pairs)
        if subject.exact and source != TRAINING:
            found.moved = area_under_curve(
                before.confidences - after.confidences,
                pairs[0][1].confidences - unseen.confidences,
            )
            _set_among_kept(found, owner, subject, before, classes)
        return found
    return None


def _set_found(found: pb.Recognition, pairs: Sequence[tuple["_Scores", ...]]) -> None:
    """Set what an attacker finds at 1 % false alarms, if unseen samples suffice to tell.

    Kept training samples are no unseen ones: what the attack calls known of them is no false alarm.
    """
    if found.source == TRAINING:
        return
    before, after = (
        found_by_losses(own.losses, other.losses, FALSE_ALARMS) for own, other in pairs
    )
    if before is not None and after is not None:
        found.found_before, found.found_after = before, after
        found.unseen = len(pairs[0][1].losses)


def _set_among_kept(
    found: pb.Recognition,
    owner: Owner,
    subject: BeforeAndAfter,
    forgotten: "_Scores",
    classes: frozenset[int],
) -> None:
    """Set how much easier the samples are than others of the training, if any are kept."""
    if subject.kept is None:
        return
    kept = OnlyClasses(subject.kept, classes, TRAINING_SAMPLES)
    if any(True for _ in kept):
        scores = _scores(owner, subject.record, subject.before, kept)
        found.among_kept = _auc(forgotten.losses, scores.losses)


@dataclass(frozen=True, slots=True)
class RetainedLoss:
    """Mean cross-entropy on retained data, in nats, before and after.

    Attributes:
        before: that of before.
        after: that of afterwards.
        samples: how many samples it is of.
        source: the split.
    """

    before: float
    after: float
    samples: int
    source: str


def retained_loss(owner: Owner, subject: BeforeAndAfter) -> RetainedLoss | None:
    """Return the loss on the first split with samples; `None` without any.

    Args:
        owner: the owner of the model.
        subject: the model, without classes: all samples of a split count.
    """
    every = frozenset(range(len(subject.record.labels)))
    for source in ("evaluation", "tuning", TRAINING):
        own = subject.kept if source == TRAINING else None
        batches = find_split(owner, subject.record, source) if own is None else own
        some = None if batches is None else OnlyClasses(batches, every, TRAINING_SAMPLES)
        if some is None or not any(True for _ in some):
            continue
        before, after = (
            _scores(owner, subject.record, weights, some).losses
            for weights in (subject.before, subject.after)
        )
        return RetainedLoss(float(before.mean()), float(after.mean()), len(after), source)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """What a model makes of samples.

    Attributes:
        losses: cross-entropies `[n]`, in float64.
        confidences: logit-scaled, `[n]`, in float64.
        named: 1 where the model names a sample by its own label, else 0 `[n]`, in float64.
        targets: their class indices `[n]`.
    """

    losses: Tensor
    confidences: Tensor
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
        losses, confidences, named, seen = [], [], [], []
        for inputs, targets in fitting:
            logits = network(*to_device(as_arguments(inputs), owner.device))
            check_logits(logits, targets.cpu(), len(record.labels))
            logits, wanted = logits.cpu().double(), targets.cpu()
            losses.append(F.cross_entropy(logits, wanted, reduction="none"))
            confidences.append(confidence(logits, wanted))
            named.append((logits.argmax(dim=1) == wanted).double())
            seen.append(wanted)
        return _Scores(torch.cat(losses), torch.cat(confidences), torch.cat(named), torch.cat(seen))

    return ShrinkingBatches(batches).run(compute)


def _auc(forgotten: Tensor, others: Tensor) -> float:
    ordered = others.sort().values
    larger = len(ordered) - torch.searchsorted(ordered, forgotten, right=True)
    equal = torch.searchsorted(ordered, forgotten, right=True) - torch.searchsorted(
        ordered, forgotten
    )
    return float((larger + equal / 2).double().mean() / len(ordered))
