"""Intervals of shares, beside scipy's."""

import pytest
from scipy.stats import binomtest

from disinherit.documents.intervals import Share, gap, is_beyond_noise


@pytest.mark.parametrize(("hits", "samples"), [(0, 1), (0, 100), (3, 14), (14, 14), (450, 900)])
def test_wilsons_interval_is_scipys(hits: int, samples: int) -> None:
    expected = binomtest(hits, samples).proportion_ci(0.95, method="wilson")
    share = Share(100 * hits / samples, samples)
    assert share.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert share.hits == hits


def test_a_difference_counts_from_newcombes_interval_on() -> None:
    """Newcombe 1998, table II: 56/70 and 48/80 give 0.0524 to 0.3339; 9/10 and 3/10 0.1705 on."""
    assert is_beyond_noise(Share(80.0, 70), Share(60.0, 80))
    assert is_beyond_noise(Share(30.0, 10), Share(90.0, 10))
    assert not is_beyond_noise(Share(10.0, 10), Share(0.0, 20))
    assert not is_beyond_noise(Share(50.0, 10), Share(50.0, 10))


def test_without_a_number_of_samples_any_difference_counts() -> None:
    assert Share(3.0).interval is None
    assert Share(3.0).hits is None
    assert is_beyond_noise(Share(3.0), Share(2.9, 100))
    assert not is_beyond_noise(Share(3.0), Share(3.0))
    assert gap(Share(3.0), None) is None
