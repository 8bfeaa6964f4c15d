"""Figures that owners measured, in words that need no training in statistics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from disinherit.documents.campaign.members import AffectedModel
from disinherit.documents.intervals import Share
from disinherit.documents.words import count


def recognition_in_words(found: Mapping[str, Any] | None) -> str:
    """Return what the figures of one model mean.

    Args:
        found: `applied.forget` of its entry in a report.

    Example:
        >>> found = {"measure": "accuracy", "before": 0.93, "after": 0.0, "floor": 0.0}
        >>> recognition_in_words(found | {"margin": 0.08, "samples": 50, "source": "evaluation"})
        'recognises 0 of 50 held-out samples (0.0 %; 95 % interval 0.0 to 7.1 %; before 93.0 %); \
up to 8.0 % may be chance in a model that never learned it'
    """
    if found is None:
        return "not measured: its owner has no data that tells"
    chance = 100 * (found["floor"] + found["margin"])
    samples = found["samples"]
    if found["measure"] == "accuracy":
        share = Share(100 * found["after"], samples)
        low, high = share.interval or (0.0, 100.0)
        unseen = "held-out " if found["source"] == "evaluation" else ""
        return (
            f"recognises {share.hits or 0} of {count(samples, f'{unseen}sample')} "
            f"({share.percent:.1f} %; 95 % interval {low:.1f} to {high:.1f} %; before "
            f"{100 * found['before']:.1f} %); up to {chance:.1f} % may be chance in a model that "
            "never learned it"
        )
    words = (
        f"an attacker picks one of these {count(samples, 'sample')} out of two "
        f"{100 * found['after']:.1f} % of the time (before {100 * found['before']:.1f} %); "
        f"guessing is {100 * found['floor']:.0f} %, and up to {chance:.1f} % may be chance in a "
        "model that never saw them"
    )
    if "named_after" in found:
        words += (
            f"; it names {100 * found['named_after']:.1f} % of them by their own labels, and up "
            f"to {100 * found['named_chance']:.1f} % may be chance"
        )
    if attack := found.get("at_1_percent_false_alarms"):
        words += f"; {_attack_in_words(attack, samples)}"
    return words


def evidence(
    found: Iterable[tuple[str, Mapping[str, Any] | None]],
) -> list[tuple[list[str], str]]:
    """Return what the figures of models mean, those with equal figures together.

    Args:
        found: id and figures of each model, as for `recognition_in_words`.

    Example:
        >>> evidence([("r1", None), ("r2", None)])
        [(['r1', 'r2'], 'not measured: its owner has no data that tells')]
    """
    said: dict[str, list[str]] = {}
    for id, figures in found:
        said.setdefault(recognition_in_words(figures), []).append(id)
    return [(ids, words) for words, ids in said.items()]


def _attack_in_words(attack: Mapping[str, Any], samples: int) -> str:
    """Return what an attacker finds at 1 % false alarms, beside a model that never saw the data."""
    share = Share(100 * attack["after"], samples)
    low, high = share.interval or (0.0, 100.0)
    return (
        f"at {100 * attack['never_saw']:.0f} % false alarms, by {attack['unseen']} unseen samples, "
        f"an attacker finds {share.hits or 0} of {samples} ({share.percent:.1f} %; 95 % interval "
        f"{low:.1f} to {high:.1f} %; before {100 * attack['before']:.1f} %), and "
        f"{100 * attack['never_saw']:.1f} % in a model that never saw them"
    )


def attack_limit(found: Sequence[AffectedModel]) -> str:
    """Return what was measured of whether the data was once used, as a limit of the report."""
    attacked = [one for one in found if one.forget is not None and one.forget["measure"] == "auc"]
    if not attacked:
        return (
            "Whether somebody can tell that the data was once used (membership inference) was not "
            "measured."
        )
    return (
        "Whether somebody can tell that the data was once used was measured in "
        f"{count(len(attacked), 'model')} with one attack, which compares losses; a stronger one "
        "may find more."
    )


def old_weights_limit(found: Sequence[AffectedModel]) -> str:
    """Return what became of the weights from before, as a limit of the report."""
    changed = [one for one in found if one.entry["successor"]]
    gone = [one for one in changed if one.entry["destroyed"]]
    if not changed:
        return "No model was changed: all weights are as they were, and know what they knew."
    kept = len(changed) - len(gone)
    if not kept:
        return (
            f"Owners say that they destroyed the weights from before of all {len(changed)} changed "
            "models. Nobody can check a disk from here."
        )
    return (
        f"Owners still have the weights from before of {kept} of "
        f"{count(len(changed), 'changed model')}, and these know what is to be forgotten."
    )
