"""Which of two methods is closer to exact retraining."""

import pytest

from disinherit.simulations.bench.comparisons import compare, counts
from tests.support.bench import cell, entry


def test_the_one_that_is_closer_on_every_seed_is_found_closer() -> None:
    cells = [
        cell(method, seed, {"retain_accuracy": entry(90.0 + gap + seed / 10, 90.0 + seed / 10)})
        for seed in range(3)
        for method, gap in (("a", -0.1), ("b", 5.0))
    ]

    found, worst = compare(cells, "one class", "a", "b")

    assert (found.metric, worst.metric) == ("retain_accuracy", "worst_retain_accuracy")
    assert found.difference.mean == pytest.approx(-4.9)
    assert found.verdict == "closer"
    assert compare(cells, "one class", "b", "a")[0].verdict == "farther"
    assert counts([found]) == {"closer": 1, "same": 0, "farther": 0}


def test_what_changes_its_sign_between_seeds_is_noise() -> None:
    cells = [
        cell(method, seed, {"forget_accuracy": entry(value)})
        for seed, values in enumerate([(1.0, 2.0), (2.0, 1.0), (1.0, 1.5)])
        for method, value in zip("ab", values, strict=True)
    ]

    assert compare(cells, "one class", "a", "b")[0].verdict == "same"


def test_seeds_are_compared_in_pairs() -> None:
    """Where cases differ more than methods do, only the pairs show it."""
    cells = [
        cell(method, seed, {"probe/last": entry(50.0 * seed + gap)})
        for seed in range(3)
        for method, gap in (("a", 1.0 + seed / 100), ("b", 2.0))
    ]

    found = compare(cells, "one class", "a", "b")

    assert [one.metric for one in found] == ["probe"]
    assert found[0].verdict == "closer"


def test_one_seed_shows_nothing() -> None:
    cells = [cell(m, 0, {"forget_accuracy": entry(v)}) for m, v in (("a", 0.0), ("b", 99.0))]

    assert compare(cells, "one class", "a", "b")[0].verdict == "same"


def test_what_one_of_them_lacks_is_left_out() -> None:
    cells = [
        cell("a", 0, {"forget_accuracy": entry(None), "retain_accuracy": entry(1.0)}),
        cell("b", 0, {"forget_accuracy": entry(1.0)}),
        cell("b", 1, {"retain_accuracy": entry(1.0)}),
    ]

    assert compare(cells, "one class", "a", "b") == []
