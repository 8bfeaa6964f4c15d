"""Overview of a run: gaps to retraining by kind of request."""

from disinherit.simulations.bench.overview import overview_table
from tests.support.bench import cell, entry


def test_methods_are_sorted_by_their_largest_gap_and_retraining_is_left_out() -> None:
    cells = [
        cell(
            method, seed, {"forget_accuracy": entry(after, 1.0), "test_accuracy": entry(80.0, 81.0)}
        )
        for seed in (0, 1)
        for method, after in (("retraining", 1.0), ("no-op", 41.0), ("ours", 0.5))
    ]
    table = overview_table(cells)
    assert table.header == ("method", "one class", "worst")
    assert table.rows == (
        ("ours", "-0.5 / -1.0 / —", "1.0"),
        ("no-op", "+40.0 / -1.0 / —", "40.0"),
    )


def test_a_method_that_was_not_measured_comes_last() -> None:
    cells = [
        cell("ours", 0, {"forget_accuracy": entry(3.0, 1.0)}),
        cell("other", 0, {"forget_accuracy": entry(None)}),
    ]
    assert [row[0] for row in overview_table(cells).rows] == ["ours", "other"]
    assert overview_table(cells).rows[1][1:] == ("— / — / —", "—")
