"""How sure a share of few samples is: Wilson's interval, and Newcombe's for a difference.

Wilson 1927 (https://doi.org/10.2307/2276774); Newcombe 1998, method 10
(https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).  Tests compare
them with scipy, which the control plane does without.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
"""Share of samples for which an interval holds the true value."""

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of samples.

    Attributes:
        percent: 0 to 100.
        samples: how many it was counted on; 0 if that is not known.
    """

    percent: float
    samples: int = 0

    @property
    def hits(self) -> int | None:
        """Number of samples in the share; `None` if it is not known of how many."""
        return round(self.percent * self.samples / 100) if self.samples else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval at `LEVEL` in percent; `None` if it is not known of how many samples.

        Example:
            >>> [round(one, 1) for one in Share(0.0, 100).interval]
            [0.0, 3.7]
        """
        n = self.samples
        if not n:
            return None
        share = self.percent / 100
        middle = share + _Z**2 / (2 * n)
        spread = _Z * math.sqrt(max(share * (1 - share), 0.0) / n + _Z**2 / (4 * n**2))
        low, high = ((middle + side * spread) / (1 + _Z**2 / n) for side in (-1, 1))
        return 100 * max(low, 0.0), 100 * min(high, 1.0)


def gap(value: Share | None, reference: Share | None) -> float | None:
    """Percentage points by which a share is above another; `None` if either is missing."""
    return None if value is None or reference is None else value.percent - reference.percent


def is_beyond_noise(value: Share, reference: Share) -> bool:
    """Return whether two shares differ by more than chance explains, by Newcombe's interval.

    Where it is not known how many samples they were counted on, any difference counts.

    Example:
        >>> is_beyond_noise(Share(4.0, 25), Share(0.0, 25))
        False
        >>> is_beyond_noise(Share(40.0, 25), Share(0.0, 25))
        True
    """
    one, other = value.interval, reference.interval
    difference = value.percent - reference.percent
    if one is None or other is None:
        return difference != 0
    if difference < 0:
        one, other, difference = other, one, -difference
        value, reference = reference, value
    below = math.hypot(value.percent - one[0], other[1] - reference.percent)
    return difference > below
