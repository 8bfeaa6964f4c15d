"""Figures by model, beside the roots that it comes from."""

from disinherit.simulations.bench.branches import branch_labels, branch_table
from disinherit.simulations.bench.report.text import render_markdown
from tests.support.bench import Record, cell, entry, reference

EDGES = ("d -> r1", "d -> r2", "r1 -> x1", "r1 -> x12", "r2 -> x12", "x12 -> y")
MODELS = ("r1", "r2", "x1", "x12", "y")


def branched(seed: int) -> Record:
    return reference(f"two roots-{seed}", roots=("r1", "r2"), edges=EDGES, models=MODELS)


def made(method: str, seed: int, retain: dict[str, float]) -> Record:
    models = {
        model: {
            "owner": "owner-0",
            "depth": 0,
            "gone": False,
            "metrics": {"retain_accuracy": entry(value, 90.0)},
        }
        for model, value in retain.items()
    }
    return cell(method, seed, {}, label="two roots", models=models)


def test_only_cases_with_several_roots_have_branches() -> None:
    assert branch_labels([branched(0), branched(1), reference("one class-0")]) == ["two roots"]


def test_every_model_stands_beside_the_roots_it_comes_from() -> None:
    cells = [made("ours", seed, {m: 90.0 - i for i, m in enumerate(MODELS)}) for seed in (0, 1)] + [
        made("published", 0, {"r1": 80.0})
    ]

    table = branch_table([branched(0)], cells, "two roots", "retain_accuracy", "gap")

    assert table.header == ("model", "from", "ours", "published")
    assert table.rows == (
        ("r1", "r1", "0.0 ± 0.0", "-10.0"),
        ("r2", "r2", "-1.0 ± 0.0", "—"),
        ("x1", "r1", "-2.0 ± 0.0", "—"),
        ("x12", "r1, r2", "-3.0 ± 0.0", "—"),
        ("y", "r1, r2", "-4.0 ± 0.0", "—"),
    )


def test_the_table_stands_in_the_report() -> None:
    run: Record = {
        "suite": {
            "name": "x",
            "cases": [{}],
            "methods": [{"name": "ours", "label": "ours", "options": {}}],
            "aims": None,
        },
        "environment": {},
    }
    text = render_markdown(run, [branched(0)], [made("ours", 0, dict.fromkeys(MODELS, 89.0))])

    assert "## Roots: two roots: retain accuracy, gap to retraining in points" in text
    assert "| x12 | r1, r2 | -1.0 |" in text
