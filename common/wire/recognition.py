"""What measurements of samples to forget show: one rule for owners and the coordinator.

The attack compares losses: how often a sample to forget has a smaller loss than an unseen one of
the same classes (AUC).  If it could tell the samples before, it must fail afterwards.  If it could
not, as with samples whose labels are wrong, it shows nothing, and the labels decide: the model
named the samples by them, and does no more.
"""

from disinherit.v1 import unlearning_pb2 as pb

LEAST_RISE = 0.01
"""Least rise of the mean loss of samples to forget, in nats: from p = 1.00 to 0.99."""

KNOWN = 0.5
"""Least share that a model names by their own labels of samples that it knows by them."""

TRAINING = "training"
"""Source of samples that the model was trained on, and that are kept."""

SAMPLE_FIGURES = ("loss_before", "loss_after", "named_before", "named_after", "named_chance")
"""Fields of a `Recognition` that only those of samples have."""

FALSE_ALARMS = 0.01
"""Share of false alarms at which it is counted what the attack finds.

Carlini et al. 2022 (arXiv 2112.03570): the AUC, a mean over all shares, hides a few leaked samples.
"""

ATTACK_FIGURES = ("found_before", "found_after")
"""Fields of a `Recognition` of samples that only enough unseen samples have."""

UNCOMPARED = 1.5
"""Margins of chance that samples must be found by where none of their classes are kept.

How easy they are is not known then.  A margin is passed by one in 20 by chance, this by one in 150.
"""

_ROUNDING = 1e-9


def recognises(found: pb.Recognition) -> bool:
    """Return whether a model recognises what is to be forgotten beyond chance."""
    return found.after > found.floor + found.margin + _ROUNDING


def is_informative(found: pb.Recognition) -> bool:
    """Return whether figures can show that something was forgotten.

    An accuracy cannot where the model recognised a class neither before nor afterwards: the labels
    may be wrong.  What an AUC shows, `unshown` decides.
    """
    known = max(found.before, found.after) > found.floor + found.margin + _ROUNDING
    return found.measure != "accuracy" or known


def had_power(found: pb.Recognition) -> bool:
    """Return whether the attack could tell samples to forget from unseen ones before.

    Among kept training samples those to forget are like all others, so their AUC is no evidence.
    """
    return found.source != TRAINING and found.before > found.floor + found.margin + _ROUNDING


def shows(found: pb.Recognition) -> bool:
    """Return whether figures show that something was forgotten.

    For a model that was trained again without samples it is enough that its confidence in these
    fell by more than in unseen ones, beyond chance: they were left out.
    """
    if not is_informative(found) or recognises(found):
        return False
    return not unshown(found) or found.moved > found.floor + found.margin + _ROUNDING


def contradicted(found: pb.Recognition) -> str:
    """Return why figures deny that a model was trained again without samples, as a clause.

    How it was made is evidence enough where figures cannot tell.  It is not against figures that a
    model without the samples would hardly give:

    - The attack tells them from unseen ones beyond chance, and beyond what they are easier than
      others of the training, which a retrained model finds easy as well; and it has kept more than
      half of its power.  Where no others of their classes were kept, it takes more than a margin.
    - The attack tells them better than before, beyond chance.
    - They were harder than unseen ones, and the model named them nevertheless: it had learned each
      of them.  Without them it must be less sure of them, more than it is of unseen ones.

    Returns:
        `""` if they do not deny it, or cannot tell.

    Example:
        >>> same = pb.Recognition(measure="auc", before=0.8, after=0.8, floor=0.5, margin=0.1)
        >>> contradicted(same)
        'the attack on losses still finds them (AUC 0.800 before and 0.800 now)'
    """
    if found.measure != "auc" or found.source == TRAINING:
        return ""
    figures = f"AUC {found.before:.3f} before and {found.after:.3f} now"
    expected = max(found.floor, found.among_kept)
    excess, margin = found.before - found.floor, found.margin
    if not found.HasField("among_kept"):
        margin *= UNCOMPARED
    if (
        found.after > expected + margin + _ROUNDING
        and found.after > found.floor + excess / 2 + _ROUNDING
    ):
        return f"the attack on losses still finds them ({figures})"
    if found.after > found.before + found.margin + _ROUNDING:
        return f"the attack on losses finds them better than before ({figures})"
    learned = found.before < found.floor - found.margin - _ROUNDING and found.named_before >= KNOWN
    if learned and found.HasField("moved") and found.moved <= found.floor + _ROUNDING:
        return (
            f"its confidence in them fell no more than in unseen samples ({figures}), and it names "
            f"{found.named_after:.1%} of them by their own labels ({found.named_before:.1%} before)"
        )
    return ""


def where_to_look(*, rebuilt: bool) -> str:
    """Return what to do where figures deny that a model was trained again without samples.

    Args:
        rebuilt: whether it was computed again from its parents.
    """
    if rebuilt:
        return "roll it back, and look at its parents, which may know them"
    return (
        "roll it back, and compare what `retrain` leaves out with what is named: it may be other "
        "samples; or near-duplicates stayed in the data, or the unseen samples are of another kind"
    )


def unshown(found: pb.Recognition) -> str:
    """Return why the figures of samples do not show that they were forgotten, as a clause.

    The attack must lose half of its excess over chance, too: one just beyond chance would fail
    after the slightest change.  And the model must not name the samples more often than unseen
    ones (Yeom et al. 2018, arXiv 1709.01604, "gap attack"): it can have raised all their losses to
    those of unseen samples and still know every one.

    Returns:
        `""` if they show it, and for other measures than the AUC.

    Example:
        >>> raised = pb.Recognition(measure="auc", before=0.5, floor=0.5, margin=0.1, loss_after=1)
        >>> unshown(raised).partition(" (")[0]
        'the attack on these samples had no power before'
    """
    if found.measure != "auc":
        return ""
    if found.loss_after < found.loss_before + LEAST_RISE:
        return (
            "the losses of the samples to forget are unchanged, "
            f"{found.loss_before:.3f} on average before and {found.loss_after:.3f} now"
        )
    excess = found.before - found.floor
    named = found.named_after > found.named_chance + _ROUNDING
    shares = (
        f"names {found.named_after:.1%} of them by their own labels ({found.named_before:.1%} "
        f"before; up to {found.named_chance:.1%} may be chance)"
    )
    if not had_power(found):
        if found.named_before >= KNOWN and not named:
            return ""
        why = f"AUC {found.before:.3f}, and up to {found.floor + found.margin:.3f} may be chance"
        if found.source == TRAINING:
            why = "there are no unseen samples to compare them with"
        return (
            f"the attack on these samples had no power before ({why}), so nothing shows that they "
            f"were forgotten, and the model {shares}"
        )
    if found.after > found.floor + min(found.margin, excess / 2) + _ROUNDING:
        return (
            "the attack on these samples has kept more than half of its power (AUC "
            f"{found.before:.3f} before and {found.after:.3f} now)"
        )
    if named:
        return f"the model still knows the samples to forget: it {shares}"
    return ""


def what_to_do(found: pb.Recognition, *, by_changes: bool = False) -> str:
    """Return what to do where figures do not show that samples were forgotten.

    Args:
        found: the figures.
        by_changes: whether the model got the changes of roots.
    """
    data = "give its owner evaluation data, " if found.source == TRAINING else ""
    return f"roll it back, and {data}{other_ways(by_changes=by_changes)}"


def other_ways(*, by_changes: bool) -> str:
    """Return how to ask again for what a model did not forget.

    Args:
        by_changes: whether the model got the changes of roots.
    """
    other = "a wider scope, a lower alpha or a repair"
    if by_changes:
        other = "another root method or more steps of repair"
    return f"ask again with {other}, or retrain it"


def gentler_ways(*, by_changes: bool) -> str:
    """Return how to ask again for what cost a model too much.

    Args:
        by_changes: whether the model got the changes of roots.
    """
    if by_changes:
        return other_ways(by_changes=True)
    return (
        "ask again with a higher alpha or a narrower scope, give its owner tuning data, or retrain "
        "it"
    )
