"""Choice of alpha, lambda and the gauge strength on the owner's tuning split.

The tuning split is disjoint from the data of training, Fisher information and evaluation.  The
choice maximises `(1 - forget) * retain`, with both accuracies in [0, 1].  Ties go to the strength
closest to the defaults.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.logits import Logits
from disinherit.common.errors import InputError
from disinherit.common.fiun.gauge import check_strength

ALPHAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LAMBDAS = (0.1, 0.3, 1.0)
GAUGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True)
class DampeningStrength:
    """Strength of dampening: threshold, constant and gauge."""

    alpha: float
    lam: float
    gauge: float


PLAIN = DampeningStrength(alpha=1.0, lam=1.0, gauge=1.0)
"""Default for a head in which rows of retained classes can be selected, too."""

DEEP = DampeningStrength(alpha=10.0, lam=1.0, gauge=1.0)
"""Default if layers before the head can be selected (alpha of SSD, arXiv 2308.07707).

With alpha 1, the retain accuracy of a residual network fell from 99 % to 15 %.
"""

ROWS_ONLY = DampeningStrength(alpha=0.3, lam=0.1, gauge=1.0)
"""Default if only the forgotten classes' rows of the head can be selected.

It applies to a head that is partly out of scope; if all is in scope, the rows are taken out at any
strength.  Stronger dampening of these rows does not affect retained classes.  At strength 1 a class
that the model confuses with others keeps most of its row, since their Fishers are similar.
"""

SAMPLES = DampeningStrength(alpha=10.0, lam=1.0, gauge=0.0)
"""Default for requests for samples, whose classes are retained (SSD, arXiv 2308.07707).

Forgotten and retained samples are similar, so only clear differences are selected.  No class must
fall below the others, so a gauge has no use.  Tuning has no held-out samples of the forget set.
"""

SAMPLES_REPAIRED = DampeningStrength(alpha=1.0, lam=0.3, gauge=0.0)
"""The same with a repair, which restores the retain accuracy after stronger dampening."""


def default_strength(
    *, only_rows: bool, only_head: bool, by_class: bool, repaired: bool
) -> DampeningStrength:
    """Return the default strength, for requests without a strength or tuning.

    Args:
        only_rows: whether only the forgotten classes' rows of the head can be selected.
        only_head: whether only the head can be selected.
        by_class: whether the request is for classes, not samples.
        repaired: whether a repair follows.
    """
    if only_rows:
        return ROWS_ONLY
    if by_class:
        return PLAIN if only_head else DEEP
    return SAMPLES_REPAIRED if repaired else SAMPLES


@dataclass(frozen=True, slots=True)
class FixedStrength:
    """Strengths fixed by a request; `None` for tuning or the default.

    Attributes:
        alpha: selection threshold.
        lam: dampening constant.
        gauge: gauge strength.
        otherwise: defaults of the other values.

    Raises:
        InputError: if a value is out of range.
    """

    alpha: float | None = None
    lam: float | None = None
    gauge: float | None = None
    otherwise: DampeningStrength = PLAIN

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("lambda", self.lam)):
            if value is not None and not 0 < value <= torch.finfo(torch.float32).max:
                raise InputError(f"Expected a positive finite {name}, but got {value}.")
        if self.gauge is not None:
            check_strength(self.gauge)

    def default(self) -> DampeningStrength:
        """Return the defaults, replaced by fixed values."""
        return DampeningStrength(
            self.otherwise.alpha if self.alpha is None else self.alpha,
            self.otherwise.lam if self.lam is None else self.lam,
            self.otherwise.gauge if self.gauge is None else self.gauge,
        )

    @property
    def complete(self) -> bool:
        """Whether all values are fixed."""
        return None not in (self.alpha, self.lam, self.gauge)

    def candidates(self) -> list[DampeningStrength]:
        """Return the grid, closest to the defaults first."""
        grid = itertools.product(
            ALPHAS if self.alpha is None else (self.alpha,),
            LAMBDAS if self.lam is None else (self.lam,),
            GAUGES if self.gauge is None else (self.gauge,),
        )
        return sorted(
            (DampeningStrength(*values) for values in grid), key=_distance_to(self.default())
        )


Outcomes = Callable[[float, float, Sequence[float]], Sequence[Mapping[str, Tensor]]]
"""Function from alpha, lambda and gauge strengths to the parameters at each strength."""


SPENT = 0.02
"""Retain accuracy that dampening of deeper layers may cost if the rows are taken out."""


def tune(
    sweep: Outcomes,
    logits: Logits,
    forgotten: Sequence[int],
    pinned: FixedStrength,
    *,
    rows_out: bool = False,
) -> DampeningStrength | None:
    """Return the best strength on the tuning split.

    If the rows of the forgotten classes are taken out of the head, they are forgotten at any
    strength.  The strength then decides how much is dampened in earlier layers.  It may cost at
    most `SPENT` of the best retain accuracy, measured without these rows.

    Args:
        sweep: function from strengths to parameters; strengths that differ in the gauge only give
            parameters that differ in the head only.
        logits: logits of the tuning split under given parameters.
        forgotten: indices of the forgotten classes.
        pinned: values that the request fixes.
        rows_out: whether the rows of these classes are taken out afterwards.

    Returns:
        The strength with the highest `(1 - forget) * retain`; `None` if the split has no forgotten
        or no retained samples.
    """
    mask = torch.isin(logits.targets, torch.tensor(list(forgotten), device=logits.targets.device))
    if mask.all() or not mask.any():
        return None
    candidates = pinned.candidates()
    together: dict[tuple[float, float], list[DampeningStrength]] = {}
    for strength in candidates:
        together.setdefault((strength.alpha, strength.lam), []).append(strength)
    found: dict[DampeningStrength, tuple[float, float]] = {}
    hidden = list(forgotten) if rows_out else []
    for (alpha, lam), strengths in together.items():
        made = sweep(alpha, lam, [strength.gauge for strength in strengths])
        found |= zip(strengths, _accuracies(logits, made, mask, hidden), strict=True)
    least = max(retain for _, retain in found.values()) - SPENT if rows_out else 0.0
    scores = {s: (1 - forget) * retain for s, (forget, retain) in found.items() if retain >= least}
    best = next(strength for strength in candidates if strength in scores)
    for strength in candidates:
        if scores.get(strength, 0.0) > scores[best] + 1e-12:
            best = strength
    return best


def _accuracies(
    logits: Logits,
    candidates: Sequence[Mapping[str, Tensor]],
    mask: Tensor,
    hidden: Sequence[int],
) -> list[tuple[float, float]]:
    """Return the forget and retain accuracy of each candidate.

    Args:
        logits: logits of the tuning split.
        candidates: parameters.
        mask: forgotten samples, `[n]`.
        hidden: classes that are excluded from predictions on retained samples.
    """
    answers, kept = [], []
    for piece in logits(candidates):
        answers.append(piece.argmax(dim=2))
        if hidden:
            left_out = torch.tensor(hidden, device=piece.device)
            piece = piece.index_fill(2, left_out, -math.inf)
        kept.append(piece.argmax(dim=2) if hidden else answers[-1])
    forget, retain = (
        (torch.cat(some) == logits.targets[:, None])[chosen].double().mean(dim=0).tolist()
        for some, chosen in ((answers, mask), (kept, ~mask))
    )
    return list(zip(forget, retain, strict=True))


def _distance_to(default: DampeningStrength) -> Callable[[DampeningStrength], float]:
    def distance(s: DampeningStrength) -> float:
        return (
            abs(math.log(s.alpha / default.alpha))
            + abs(math.log(s.lam / default.lam))
            + abs(s.gauge - default.gauge)
        )

    return distance
