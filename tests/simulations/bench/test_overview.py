"""Overview of a run: gaps to retraining by kind of request."""

import json
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.common.errors import InputError
from disinherit.simulations.bench.overview import overview_table
from disinherit.simulations.bench.report.screen import render_overview
from tests import ROOT
from tests.support.bench import cell, entry, results_command, run_record


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
    assert overview_table(cells).rows[1][1:] == ("—", "—")


def test_a_screen_shows_the_methods_that_are_asked_for() -> None:
    found = {"ours": 1.0, "other": 5.0, "third": 9.0}
    cells = [cell(name, 0, {"forget_accuracy": entry(gap)}) for name, gap in found.items()]
    runs = [(run_record(*found), cells)]
    text = render_overview(runs, methods=["ours", "third"])
    assert "| ours | — | +1.0" in text
    assert "| other |" not in text
    assert "Not shown: other." in text
    assert "Not shown" not in render_overview(runs)
    with pytest.raises(InputError, match=r"\(ours, other, third\).*'nothing'"):
        render_overview(runs, methods=["nothing"])


def test_of_two_runs_with_the_same_cases_the_last_counts() -> None:
    runs = [
        (run_record("ours"), [cell("ours", 0, {"forget_accuracy": entry(after, 1.0)})])
        for after in (9.0, 3.0)
    ]
    text = render_overview(runs, "What works.")
    assert "| ours | — | +2.0 / — / — | 2.0 |" in text
    assert "+8.0" not in text
    assert text.index("> What works.") < text.index("| ours |")
    assert "\n- *ours*: this package: classes by the roots' Fisher information" in text
    assert "misses" not in text


def test_aims_of_all_runs_stand_together() -> None:
    runs = [
        (
            run_record("ours", aims={"methods": ["ours"], "rival": "no-op"}),
            [
                cell(
                    "ours",
                    0,
                    {"forget_accuracy": entry(0.0), "retain_accuracy": entry(kept, 90.0)},
                    label=label,
                )
            ],
        )
        for label, kept in (("one", 89.0), ("other", 91.0))
    ]
    text = render_overview(runs)
    assert "| ours | 3 of 4 | " in text
    kept = "retain accuracy at most 0.5 points below retraining"
    assert f"Aims that ours misses, by cases: “{kept}” in 1 of 2." in text


def test_the_first_page_of_results_is_made_from_the_stored_figures_and_is_one_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command of `make results`, so that its note is whole as well."""
    monkeypatch.chdir(ROOT)
    command = results_command("overview")
    page = tmp_path / "page.md"
    command[command.index("docs/results.md")] = str(page)
    assert run([*command, "-o", "json"]) == 0
    assert page.read_text() == (ROOT / "docs/results.md").read_text()
    assert len(page.read_text().splitlines()) <= 32
    printed = json.loads(capsys.readouterr().out)
    assert printed["markdown"] == str(page)
    ours = printed["aims"]["ours"]
    assert f"| ours | {ours['met']} of {ours['judged']} |" in page.read_text()
    missed = sum(len(one["missed"]) for one in ours["aims"])
    assert missed == ours["judged"] - ours["met"]


def test_suites_and_reports_are_printed_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "list", "-o", "json"]) == 0
    assert "quick" in json.loads(capsys.readouterr().out)
    assert run(["bench", "list"]) == 0
    assert "quick" in capsys.readouterr().out.splitlines()
    stored = str(ROOT / "docs/figures/classes.jsonl.gz")
    pages = {"html": tmp_path / "page.html", "markdown": tmp_path / "page.md"}
    options = [word for name, path in pages.items() for word in (f"--{name}", str(path))]
    assert run(["bench", "report", stored, *options, "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: Path(printed[name]) for name in pages} == pages
    assert {name for one in printed["aims"].values() for name in one} == {"met", "judged", "aims"}
