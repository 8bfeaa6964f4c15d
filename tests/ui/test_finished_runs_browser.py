"""Finished runs in a browser: their screens are accessible, and long tables of reports sort."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disinherit.simulations.bench.report.html import render_html as render_bench
from disinherit.simulations.report.html import render_html
from disinherit.ui.local import local_application
from disinherit.ui.serving import LOOPBACK
from tests.simulations.report.test_many_models import many
from tests.support.bench import cell, entry, reference, run_record
from tests.support.browsing import Watched, chromium, looked_at, served
from tests.support.report import make_report
from tests.ui.test_local import write_bench


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def test_every_screen_of_runs_is_accessible_at_each_size_in_dark_and_in_print(
    browser: Any, tmp_path: Path
) -> None:
    for place, seed in (("one", 0), ("two", 7)):
        report = make_report()
        report["scenario"]["seed"] = seed
        (tmp_path / place).mkdir()
        (tmp_path / place / "report.json").write_text(json.dumps(report))
    (tmp_path / "two/report.html").write_text(render_html(report))
    write_bench(tmp_path / "bench")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/report.json").write_text("{}")
    with served(lambda port: local_application(tmp_path, LOOPBACK)) as base:
        reader = Watched(browser, base)
        found = {}
        for path in ("/runs", "/run?id=two", "/run?id=bench", "/runs/compare?id=one&id=two"):
            reader.open(path)
            if problems := looked_at(reader.page):
                found[path] = problems
        assert found == {}
        assert reader.problems == []
        reader.context.close()


def test_the_report_of_a_benchmark_is_accessible_at_each_size_in_dark_and_in_print(
    browser: Any, tmp_path: Path
) -> None:
    cells = [
        cell(name, seed, {"forget_accuracy": entry(gap), "retain_accuracy": entry(95 - gap, 95)})
        for name, gap in (("ours", 1.0), ("head-reset", 20.0))
        for seed in (0, 1)
    ]
    run = run_record("ours", "head-reset", aims={"methods": ["ours"], "rival": "head-reset"})
    path = tmp_path / "report.html"
    path.write_text(render_bench(run, [reference(f"one class-{seed}") for seed in (0, 1)], cells))
    reader = Watched(browser, path.as_uri())
    reader.open("")
    assert looked_at(reader.page) == {}
    assert reader.problems == []
    reader.context.close()


def test_a_long_table_sorts_and_filters(browser: Any, tmp_path: Path) -> None:
    """In a file, where the page's policy allows its script by hash."""
    (tmp_path / "report.html").write_text(render_html(many(30)))
    reader = Watched(browser, (tmp_path / "report.html").as_uri())
    reader.open("")
    page = reader.page
    shown = "table.sortable >> nth=0 >> tbody tr:visible th"
    head = page.locator("table.sortable >> nth=0 >> thead tr:last-child th")

    def first_cells() -> list[str]:
        return [one.strip() for one in page.locator(shown).all_inner_texts()]

    as_written = first_cells()
    assert len(as_written) == 31
    name = head.nth(0)
    name.locator("button").click()
    assert name.get_attribute("aria-sort") == "descending"
    assert first_cells() == [f"u{i}" for i in range(30, -1, -1)]  # by number, not by letter
    name.locator("button").focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-sort") == "ascending"
    assert first_cells() == [f"u{i}" for i in range(31)]

    gap = head.filter(has_text="gap").nth(1)  # of what is kept; a minus is typographic
    gap.locator("button").click()
    assert name.get_attribute("aria-sort") is None
    cells = page.locator("table.sortable >> nth=0 >> tbody td:nth-last-child(4)")
    gaps = [float(one.replace("\N{MINUS SIGN}", "-")) for one in cells.all_inner_texts()]
    assert gaps == sorted(gaps, reverse=True)
    assert min(gaps) < 0

    page.locator("input[type=search]").first.fill("u1")
    assert set(first_cells()) == {"u1", *(f"u{i}" for i in range(10, 20))}
    page.locator("input[type=search]").first.fill("")
    assert sorted(first_cells()) == sorted(as_written)
    assert reader.problems == []
    reader.context.close()
