"""Choice of alpha, lambda and the gauge strength on the owner's tuning split.

The tuning split is disjoint from what training, Fisher information and evaluation use.  The choice
maximises the tug-of-war between forgetting and retaining, `(1 - forget) * retain` with both
accuracies in [0, 1]; among equals it stays closest to the defaults.
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
    """How strongly to dampen."""

    alpha: float
    lam: float
    gauge: float


PLAIN = DampeningStrength(alpha=1.0, lam=1.0, gauge=1.0)
"""The default in a head where the rows of retained classes can be hit, too."""

DEEP = DampeningStrength(alpha=10.0, lam=1.0, gauge=1.0)
"""The default where layers before the head can be hit (alpha is SSD's, arXiv 2308.07707).

With alpha 1 a residual network that was right on 99 % of what is to be kept fell to 15 %.
"""

ROWS_ONLY = DampeningStrength(alpha=0.3, lam=0.1, gauge=1.0)
"""The default where nothing but the forgotten classes' rows of the head can be selected.

For a head of which a part is out of scope; one that is all in scope has its rows taken out,
whatever the strength.  Dampening those rows more costs the retained classes nothing, while at
strength 1 a class that the model confuses with others keeps most of its row: its samples and theirs
then have alike Fishers.
"""

SAMPLES = DampeningStrength(alpha=10.0, lam=1.0, gauge=0.0)
"""The default where samples are to be forgotten and their classes kept (SSD's, arXiv 2308.07707).

Samples have much in common with what is kept, so only what stands out is selected; there is no
class to end below all others, so nothing is gained by a gauge.  Tuning has no held-out samples of
what is to be forgotten to go by.
"""

SAMPLES_REPAIRED = DampeningStrength(alpha=1.0, lam=0.3, gauge=0.0)
"""The same where a repair follows, which gives back what so much takes from what is kept."""


def default_strength(
    *, only_rows: bool, only_head: bool, by_class: bool, repaired: bool
) -> DampeningStrength:
    """Return how strongly to dampen where a request leaves it open and nothing is tuned.

    Args:
        only_rows: whether nothing but the forgotten classes' rows of the head can be selected.
        only_head: whether nothing but the head can be selected.
        by_class: whether classes are to be forgotten, and not samples.
        repaired: whether a repair follows.
    """
    if only_rows:
        return ROWS_ONLY
    if by_class:
        return PLAIN if only_head else DEEP
    return SAMPLES_REPAIRED if repaired else SAMPLES


@dataclass(frozen=True, slots=True)
class FixedStrength:
    """The values a request fixes; `None` leaves one to tuning, or to its default.

    Attributes:
        alpha: selection threshold.
        lam: dampening constant.
        gauge: gauge strength.
        otherwise: the defaults of what is not fixed.

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
        """Return the defaults with the fixed values in their place."""
        return DampeningStrength(
            self.otherwise.alpha if self.alpha is None else self.alpha,
            self.otherwise.lam if self.lam is None else self.lam,
            self.otherwise.gauge if self.gauge is None else self.gauge,
        )

    @property
    def complete(self) -> bool:
        """Whether nothing is left to tune."""
        return None not in (self.alpha, self.lam, self.gauge)

    def candidates(self) -> list[DampeningStrength]:
        """Return the grid, the strengths closest to the defaults first."""
        grid = itertools.product(
            ALPHAS if self.alpha is None else (self.alpha,),
            LAMBDAS if self.lam is None else (self.lam,),
            GAUGES if self.gauge is None else (self.gauge,),
        )
        return sorted(
            (DampeningStrength(*values) for values in grid), key=_distance_to(self.default())
        )


Outcomes = Callable[[float, float, Sequence[float]], Sequence[Mapping[str, Tensor]]]
"""Maps alpha, lambda and gauge strengths to the parameters at each of these strengths."""


SPENT = 0.02
"""Accuracy on what is to be kept that dampening deeper layers may cost where the rows are out."""


def tune(
    sweep: Outcomes,
    logits: Logits,
    forgotten: Sequence[int],
    pinned: FixedStrength,
    *,
    rows_out: bool = False,
) -> DampeningStrength | None:
    """Return the best strength on the tuning split.

    Where the rows of the forgotten classes are taken out of the head, the classes are forgotten
    whatever the strength, and it only decides how much of them is dampened in the layers before.
    Then a strength may cost `SPENT` on what is to be kept, measured without these rows, against the
    best one, and no more.

    Args:
        sweep: the parameters that strengths lead to; they differ in the head alone where only the
            gauge does.
        logits: logits of the tuning split under given parameters.
        forgotten: class indices that are to be forgotten.
        pinned: values that the request fixes.
        rows_out: whether the rows of these classes are going to be taken out.

    Returns:
        The strength with the highest `(1 - forget) * retain`; `None` if the split lacks either
        forgotten or retained samples, so that nothing can be weighed.
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
    """Return accuracies of each candidate on what is to be forgotten and on what is to be kept.

    Args:
        logits: of the tuning split.
        candidates: parameters.
        mask: which samples are to be forgotten, `[n]`.
        hidden: classes that are not answered where samples are to be kept.
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
