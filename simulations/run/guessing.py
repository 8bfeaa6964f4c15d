"""Models that know no more than a guess would: there is nothing to unlearn in them."""

from collections.abc import Mapping, Sequence

from scipy.stats import binom

from disinherit.common.errors import UntrainedError
from disinherit.simulations.report.build import Confusions

_CHANCE = 0.01
"""How often a guess does as well by chance, at most, where a model is said to know something."""


def guesses(confusion: Sequence[Sequence[int]]) -> bool:
    """Return whether right answers are so few that naming one class always gives as many.

    That is the hypothesis of a one-sided binomial test at 1 %, with the share of the most frequent
    class as the probability of a right answer.

    Args:
        confusion: counts `[C, C]`; row = true class, column = predicted class.

    Example:
        >>> guesses([[50, 50], [50, 50]]), guesses([[90, 10], [10, 90]])
        (True, False)
    """
    samples, right, share = _counts(confusion)
    return bool(binom.sf(right - 1, samples, share) > _CHANCE)


def check_knowledge(roots: Sequence[str], before: Confusions) -> None:
    """Refuse to unlearn in a network whose roots know nothing.

    Args:
        roots: models where what is to be forgotten came in.
        before: of every model that was evaluated.

    Raises:
        UntrainedError: if one of the roots does no better than a guess.
    """
    for root in roots:
        if root in before and guesses(before[root]):
            samples, right, share = _counts(before[root])
            raise UntrainedError(
                f"Expected model {root!r} to have learned something before it is to forget, but it "
                f"names {100 * right / samples:.1f} % of {samples} evaluation samples correctly, "
                f"and a guess {100 * share:.1f} %. Nothing was unlearned. Train longer or faster, "
                "for example with --epochs 20 --learning-rate 1e-2, or on more samples."
            )


def guessing_models(before: Mapping[str, Sequence[Sequence[int]]]) -> list[str]:
    """Return the models that do no better than a guess."""
    return [model for model, confusion in before.items() if guesses(confusion)]


def _counts(confusion: Sequence[Sequence[int]]) -> tuple[int, int, float]:
    """Return the samples, the right answers, and the share of the most frequent class."""
    rows = [sum(row) for row in confusion]
    samples = sum(rows)
    right = sum(row[place] for place, row in enumerate(confusion))
    return samples, right, max(rows) / samples
