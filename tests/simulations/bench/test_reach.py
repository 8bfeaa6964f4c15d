"""Figures by depth, and what the inheritance score said beforehand."""

from collections.abc import Sequence

from disinherit.simulations.bench.reach import depth_table, prediction_table, predictions
from tests.support.bench import Record, cell, entry

LABEL = "one class"


def chain(seed: int, figures: Sequence[tuple[float, float | None]], method: str = "ours") -> Record:
    """A chain of models, with the forget accuracy and the score of each."""
    models = {
        f"u{depth}": {
            "owner": "owner-0",
            "depth": depth,
            "gone": False,
            "metrics": {"forget_accuracy": entry(forget)},
        }
        for depth, (forget, _) in enumerate(figures)
    }
    made = cell(method, seed, {}, models=models)
    made["chosen"] = {
        f"u{depth}": {"inheritance": score} for depth, (_, score) in enumerate(figures)
    }
    return made


def test_depths_are_evenly_shown_with_the_first_and_the_last() -> None:
    figures = [(float(depth), 1 - depth / 100) for depth in range(51)]
    cells = [chain(0, figures), chain(1, figures), cell("other", 0, {}, label="another")]

    table = depth_table(cells, LABEL, "forget_accuracy", "value")

    assert table.header == ("derivations below the root", "ours", "score, ours")
    assert [row[0] for row in table.rows] == [str(d) for d in range(0, 51, 5)]
    assert table.rows[2] == ("10", "10.0 ± 0.0", "0.900 ± 0.000")


def test_methods_without_scores_have_no_column_of_them() -> None:
    cells = [chain(0, [(0.0, None), (9.0, None)]) | {"chosen": {"u0": "lr=0.1"}}]

    table = depth_table(cells, LABEL, "forget_accuracy", "value")

    assert table.header == ("derivations below the root", "ours")
    assert predictions(cells, LABEL) == []


def test_a_score_that_falls_before_forgetting_does_is_a_perfect_prediction() -> None:
    cells = [chain(seed, [(0.0, 1.0), (1.0, 0.9), (6.0, 0.5), (80.0, 0.2)]) for seed in (0, 1)]

    (found,) = predictions(cells, LABEL)

    assert (found.models, found.missed, found.first) == (8, 4, 2)
    assert found.area == 1.0
    assert found.highest == 0.5
    row = ("ours", "8", "4", "2", "1.00", "0.500")
    assert prediction_table([found]).rows == (row,)


def test_where_all_models_forget_there_is_nothing_to_predict() -> None:
    (found,) = predictions([chain(0, [(0.0, 1.0), (0.0, 0.1)])], LABEL)

    assert (found.missed, found.first, found.area, found.highest) == (0, None, None, None)
    assert prediction_table([found]).rows == (("ours", "2", "0", "—", "—", "—"),)


def test_a_useless_score_is_a_guess() -> None:
    (found,) = predictions([chain(0, [(0.0, 0.5), (50.0, 0.5)])], LABEL)

    assert found.area == 0.5
