"""The page of a run of the bench: what comes first, what is folded, and whom it is readable for."""

import re

import pytest

from disinherit.simulations.bench.markdown import TextTable, markdown_table
from disinherit.simulations.bench.report.html import render_html
from tests.support.bench import Record, cell, entry, reference, run_record

AIMS = {"methods": ["ours"], "rival": "head-reset"}
LABELS = ("one class", "<b>other</b> | class")
REFERENCES = [reference(f"{label}-{seed}") for label in LABELS for seed in (0, 1)]


@pytest.fixture(scope="module")
def cells() -> list[Record]:
    return [
        cell(
            method,
            seed,
            {
                "forget_accuracy": entry(forget + seed),
                "retain_accuracy": entry(kept, 90.0),
                "test_accuracy": entry(kept, 90.0),
            },
            label=label,
            seconds=seconds,
        )
        for label in LABELS
        for seed in (0, 1)
        for method, forget, kept, seconds in (
            ("no-op", 81.0, 91.0, 0.1),
            ("retraining", 0.0, 90.0, 60.0),
            ("head-reset", 1.0, 88.0, 0.1),
            ("ours", 0.25, 89.0, 0.5),
        )
    ]


@pytest.fixture(scope="module")
def page(cells: list[Record]) -> str:
    run = run_record("no-op", "retraining", "head-reset", "ours", aims=AIMS)
    return render_html(run, REFERENCES, cells)


def test_aims_come_first_then_the_heat_map_then_what_methods_are(page: str) -> None:
    verdict = re.search(r"<h1.*?</h1>", page, re.DOTALL)
    assert verdict is not None
    assert "ours meets 4 of 8 aims." in verdict[0]
    places = [page.index(f'<h2 id="{one}"') for one in ("aims", "gaps", "methods", "limits")]
    assert places == sorted(places)
    assert "✕ 0 of 2" in page, "as for forget accuracy, 0.75 % where 0.5 % is aimed at"
    assert "this package: classes by" in page
    assert "nothing is changed" in page


def test_the_heat_map_has_a_row_for_each_method_and_links_to_the_cases(page: str) -> None:
    heat = page[page.index('<table class="cases"') :]
    heat = heat[: heat.index("</table>")]
    assert re.findall(r'<th scope="row">(.*?)</th>', heat) == ["ours", "head-reset", "no-op"]
    assert "+81.5 <i>f</i>" in heat
    assert "\N{MINUS SIGN}1.0 <i>t</i>" in heat
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page


def test_nothing_of_markdown_is_on_the_page(page: str) -> None:
    text = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    assert "**" not in text
    assert "*retrained*" not in text
    assert '<td class="bad-text">✕ no</td>' in page


def test_tables_can_be_read_aloud_and_scrolled_by_keys(page: str) -> None:
    assert page.count("<main>") == 1
    assert page.count("<table") == page.count("<caption>")
    assert page.count("<table") == page.count('class="scroll" role="region" aria-label="')
    assert page.count('role="region"') == page.count('tabindex="0"')
    assert not re.search(r"<th[^>]*>\s*</th>", page)


def test_labels_are_taken_for_text(page: str) -> None:
    assert "<b>other</b>" not in page
    assert "&lt;b&gt;other&lt;/b&gt; | class" in page


def test_plots_name_what_they_show_and_the_aim(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    scatters = [one for one in plots if 'class="scatter"' in one]
    assert len(scatters) == len(LABELS)
    for one in scatters:
        assert re.findall(r'class="name [a-z]+">([^<]+)<', one).count("as retrained") == 1
        assert ">ours</text>" in one
    assert not any("fill:" in one or "#" in one for one in plots), "colours are the page's"


def test_what_takes_time_is_said(cells: list[Record]) -> None:
    said: list[str] = []
    run = run_record("no-op", "retraining", "head-reset", "ours", aims=AIMS)
    render_html(run, REFERENCES, cells, said.append)
    assert said == ["judging aims", "comparing methods", "drawing 2 kinds of cases"]


def test_a_suite_without_aims_and_a_run_without_figures_have_a_page(cells: list[Record]) -> None:
    page = render_html(run_record("ours"), REFERENCES, cells)
    assert "Nearest to exact retraining" in page
    assert 'id="aims"' not in page
    nothing = [one | {"not_applicable": "no"} for one in cells]
    failed = [reference("one class-0", ["Bad."]), *REFERENCES[1:]]
    page = render_html(run_record("ours"), failed, nothing)
    assert "Nothing was measured yet." in page
    assert "A sanity gate was not passed: one class-0: Bad." in page
    assert "All passed" not in page


def test_columns_of_words_are_aligned_to_the_left_in_markdown() -> None:
    table = TextTable(
        ("case", "aim", "gap", "met"),
        (("a | b", "at most 1 %", "+0.5", "no"), ("b", "—", "—", "yes")),
        verdicts=3,
    )
    lines = markdown_table(table).splitlines()
    assert lines[1] == "| --- | --- | ---: | --- |"
    assert lines[2] == "| a \\| b | at most 1 % | +0.5 | **no** |"
