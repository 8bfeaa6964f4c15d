"""A verdict: one sentence, a level that follows its reservations, and these, worst named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from disinherit.documents.intervals import Share, gap, is_beyond_noise
from disinherit.documents.words import count

Level = Literal["good", "warning", "bad", "neutral"]

SIGNS: dict[Level, str] = {"good": "✓", "warning": "!", "bad": "✕", "neutral": "·"}
"""Sign of each level, for those who do not see its colour."""

NOTABLE = 3.0
"""Percentage points from which on a difference of accuracies is worth a reservation."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sentence, its level, and the reservations to show beside it.

    A verdict is `good` only without reservations.
    """

    sentence: str
    level: Level
    reservations: list[str]

    @property
    def sign(self) -> str:
        """The level as one character."""
        return SIGNS[self.level]


@dataclass(frozen=True, slots=True)
class ShareGap:
    """By how many percentage points a model is above its reference, and on how many samples."""

    model: str
    points: float
    samples: int


Pair = tuple[str, Share | None, Share | None]
"""A model, what was measured, and its reference."""


def gaps_of(pairs: Iterable[Pair]) -> list[ShareGap]:
    """Return the gap of every model that has both values, in the order given."""
    return [
        ShareGap(model, difference, value.samples)
        for model, value, reference in pairs
        if value is not None and (difference := gap(value, reference)) is not None
    ]


def notable(pairs: Iterable[Pair], side: int) -> list[ShareGap]:
    """Return the gaps on one side that are more than `NOTABLE` and than noise, the largest first.

    Args:
        pairs: the models.
        side: 1 for above the reference, -1 for below.
    """
    chosen = [
        pair
        for pair in pairs
        if pair[1] is not None
        and pair[2] is not None
        and side * (pair[1].percent - pair[2].percent) > NOTABLE
        and is_beyond_noise(pair[1], pair[2])
    ]
    return sorted(gaps_of(chosen), key=lambda one: -abs(one.points))


def with_worst(gaps: Sequence[ShareGap], about: str, side: str, than: str) -> str:
    """Return one sentence for all gaps, which names the worst.

    Args:
        gaps: the largest first, at least one.
        about: what was measured, such as "the remaining classes".
        side: in which direction, such as "below".
        than: the reference, in the singular.

    Example:
        >>> gaps = [ShareGap("u47", -16.6, 900), ShareGap("u3", -4.0, 900)]
        >>> with_worst(gaps, "the remaining classes", "below", "the retrained model")
        '2 models are more than 3 points below the retrained model on the remaining classes; worst \
u47: 16.6 points (900 samples).'
    """
    worst = gaps[0]
    samples = f" ({count(worst.samples, 'sample')})" if worst.samples else ""
    points = f"{abs(worst.points):.1f} points"
    if len(gaps) == 1:
        return f"{worst.model} is {points} {side} {than} on {about}{samples}."
    return (
        f"{len(gaps)} models are more than {NOTABLE:.0f} points {side} {than} on {about}; "
        f"worst {worst.model}: {points}{samples}."
    )
