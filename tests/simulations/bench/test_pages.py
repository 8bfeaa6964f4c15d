"""The report of a run: figures are shown as they are, and what is missing is said."""

import pytest

from disinherit.common.errors import InputError
from disinherit.simulations.bench.joining import join_runs
from disinherit.simulations.bench.report.html import render_html
from disinherit.simulations.bench.report.text import render_markdown
from tests.support.bench import Record, cell, entry, reference, run_record

AIMS = {"methods": ["ours"], "rival": "head-reset"}


@pytest.fixture
def cells() -> list[Record]:
    return [
        cell(
            method,
            seed,
            {
                "forget_accuracy": entry(forget + seed),
                "retain_accuracy": entry(88.0, 90.0),
                "lira_tpr": entry(None),
            },
            seconds=seconds,
        )
        for seed in (0, 1)
        for method, forget, seconds in (
            ("retraining", 0.0, 60.0),
            ("head-reset", 1.0, 0.1),
            ("ours", 0.25, 0.5),
        )
    ]


def test_markdown_has_every_figure_beside_the_retrained_one(cells: list[Record]) -> None:
    run = run_record("retraining", "head-reset", "ours", aims=AIMS)

    text = render_markdown(run, [reference("one class-0")], cells)

    assert "|  | retrained | retraining | head-reset | ours |" in text
    assert "| forget accuracy, % | 0.0 ± 0.0 | 0.5 ± 6.4 | 1.5 ± 6.4 | 0.8 ± 6.4 |" in text
    assert "| one class | forget accuracy at most 0.5 % | 0.75 ± 6.35 % | **no** |" in text
    assert "120 times | yes |" in text
    assert "- lira_tpr: there was nothing to measure (one class)" in text
    assert "All passed" in text


def test_accuracies_of_one_seed_have_intervals_of_their_samples(cells: list[Record]) -> None:
    for one in cells:
        one["models"]["r2"] = one["models"]["r1"]
    run, heading = run_record("retraining", "head-reset", "ours"), "| 95 % interval | retrained |"
    references, first = [reference("one class-0", models=["r1", "r2"])], cells[:3]
    assert heading not in render_markdown(run, references, first)  # not known of how many
    for model, count in (("r1", 50), ("r2", 100)):
        references[0]["models"][model] = {"tested": {"forget": count, "retain": 200, "test": 250}}

    assert heading not in render_markdown(run, references, cells)  # it has those over seeds
    text = render_markdown(run, references, first)

    assert f"{heading} retraining | head-reset | ours |" in text
    # Both models were measured with the same samples: they are as sure as the one with fewer.
    assert "| forget accuracy, % | 0.0 to 7.1 | 0.0 to 7.1 | 0.1 to 8.9 | 0.0 to 7.6 |" in text
    assert "| retain accuracy, % | 85.1 to 93.4 | 82.8 to 91.8 |" in text
    assert "How sure accuracies of one seed are" in render_html(run, references, first)


def test_gates_that_were_not_passed_stand_before_the_figures(cells: list[Record]) -> None:
    references = [reference("one class-0", ["The retrained r1 fails the panel: 50%."])]

    text = render_markdown(run_record("ours"), references, cells)

    assert text.index("The retrained r1 fails") < text.index("| forget accuracy, %")
    assert "All passed" not in text
    assert "## Aims" not in text


def test_a_method_that_does_not_apply_is_named_with_the_reason(cells: list[Record]) -> None:
    cells = [
        one | {"not_applicable": "samples have no row"} if one["method"] == "head-reset" else one
        for one in cells
    ]

    text = render_markdown(run_record("ours"), [reference("one class-0")], cells)

    assert "- head-reset: samples have no row (one class)" in text
    assert "| retraining | ours |" in text


def test_the_page_is_whole_and_nothing_in_it_is_taken_for_markup(cells: list[Record]) -> None:
    cells = [one | {"label": "<script>alert(1)</script>"} for one in cells]
    run = run_record("retraining", "head-reset", "ours", aims=AIMS)

    page = render_html(run, [reference(f"one class-{seed}") for seed in (0, 1)], cells)

    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    pictures = page.count("<svg") + page.count('<td class="num heat-cell"')
    assert page.count("<svg") >= 2
    assert pictures >= 3, "the heat map is a table, which can be read aloud"
    assert "Aims: ours" in page


def test_the_spread_of_the_reference_has_its_own_table(cells: list[Record]) -> None:
    references = []
    for seed, accuracies in enumerate(([80.0, 82.0, 84.0], [80.0, 80.0, 80.0])):
        one = reference(f"one class-{seed}")
        one["models"]["r1"] = {"retrained": {"values": {"test_accuracy": 83.0 - seed}}}
        one["spread"] = {"r1": [{"test_accuracy": value} for value in accuracies]}
        references.append(one)
    run = run_record("retraining", "head-reset", "ours")

    text = render_markdown(run, references, cells)

    assert "## Spread of the reference: one class" in text
    assert "|  | retrained | other seeds | standard deviation |" in text
    # Means of 83 and 82, and of all six; deviations of 2 and 0, pooled.
    assert "| test accuracy, % | 82.5 | 81.0 | 1.4 |" in text
    assert "Spread of the reference: one class" in render_html(run, references, cells)
    assert "Spread" not in render_markdown(run, [reference("one class-0")], cells)


def test_a_note_stands_below_the_title() -> None:
    text = render_markdown(run_record("ours"), [reference("one class-0")], [], "Of before.")
    assert text.splitlines()[2] == "> Of before."
    assert "> " not in render_markdown(run_record("ours"), [reference("one class-0")], [])


def test_several_runs_are_one_page(cells: list[Record]) -> None:
    others = [
        cell(
            method,
            0,
            {"lira_tpr": entry(found), "test_accuracy": entry(80.0, 80.0)},
            label="samples",
            granularity="samples",
        )
        for method, found in (("no-op", 7.0), ("ours", 1.5))
    ]
    first = run_record("retraining", "head-reset", "ours", aims=AIMS)
    second = run_record("no-op", "ours", aims={"methods": ["ours"], "rival": "no-op"})
    second["suite"]["name"] = "other"
    second["environment"] = {"torch": "0.1"}
    references = [reference(f"one class-{seed}") for seed in (0, 1)]

    joined = join_runs([(first, references, cells), (second, [reference("samples-0")], others)])

    text = render_markdown(*joined)
    assert "# Results: suites `tiny` and `other`" in text
    assert "bench run other --out DIR` and `disinherit bench report DIR DIR`" in text
    assert "3 of 2 cases, 8 of 5 cells are finished." in text, "as declared by each suite"
    assert text.count("## Aims: ours") == 1
    assert "closer to retraining than head-reset" in text
    assert "than no-op" not in text
    assert "| torch | 0.0; 0.1 |" in text
    assert "## one class" in text
    assert "## samples" in text
    assert join_runs([(first, references, cells)])[0] is first
    with pytest.raises(InputError, match="one class-0 is in two"):
        join_runs([(first, references, cells), (second, references, cells)])
