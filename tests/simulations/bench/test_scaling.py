"""Growth with size: laws, where they get to 100 times, bounds, and the page that says so."""

from pathlib import Path
from typing import Any

import pytest

from disinherit.cli.main import run
from disinherit.common.errors import InputError
from disinherit.simulations.bench.cells import pack_run, write_record
from disinherit.simulations.bench.report.growth import draw_growth, law_table, render_growth
from disinherit.simulations.bench.scaling import Law, fit, growths_of, sizes_of
from tests import ROOT
from tests.support.bench import Record, cell, entry, reference, results_command, run_record

SIZES = ((100, 10, 1_000), (400, 20, 4_000), (1_000, 40, 16_000))
"""Samples, epochs, parameters."""


def a_reference(number: int, request: str = "class", *, gone: bool = False) -> Record:
    samples, epochs, parameters = SIZES[number - 1]
    made = reference(f"{request}, size {number}-0", models=["r1", "r2"])
    made["declaration"]["settings"] |= {"network": f"mlp-{number}", "epochs": epochs}
    before = {"values": {"forget_accuracy": 90.0, "loss_attack_auc": 0.6}}
    for model in made["models"]:
        made["models"][model] = {
            "gone": gone and model == "r1",
            "samples": 0 if gone and model == "r1" else samples,
            "parameters": parameters,
            "tested": {"forget": 100, "retain": 100, "test": 200},
            "original": before,
        }
    return made


def a_cell(
    method: str,
    number: int,
    seconds: float,
    setup: float = 0.0,
    *,
    request: str = "class",
    granularity: str = "class",
    forget: float = 0.0,
    **changes: Any,
) -> Record:
    metrics = {
        "forget_accuracy": entry(forget),
        "retain_accuracy": entry(89.5, 90.0),
        "test_accuracy": entry(80.0, 82.0),
        "loss_attack_auc": entry(0.52, 0.5),
    }
    made = cell(
        method,
        0,
        metrics,
        label=f"{request}, size {number}",
        granularity=granularity,
        seconds=seconds + setup,
    )
    return made | {"setup_cpu_seconds": setup, **changes}


def a_run(*, forget: float = 0.0) -> tuple[list[Record], list[Record]]:
    """A class at three sizes: retraining is a ten-millionth of the work, unlearning its root."""
    references = [a_reference(number) for number in (1, 2, 3)]
    cells = []
    for number, size in enumerate(sizes_of(references).values(), start=1):
        cells.append(a_cell("retraining", number, size.work * 1e-7))
        cells.append(a_cell("ours", number, size.work**0.5 * 1e-5, 2.0, forget=forget))
    return references, cells


def test_a_law_finds_the_power_that_made_its_points() -> None:
    law = fit([(x, 3 * x**0.5) for x in (1.0, 10.0, 500.0)])

    assert law.factor == pytest.approx(3)
    assert law.power == pytest.approx(0.5)
    assert law.miss == pytest.approx(0, abs=1e-9)
    assert law.reaches(30.0) == pytest.approx(100)


def test_a_law_says_how_far_a_point_is_off_it() -> None:
    law = fit([(1.0, 1.0), (10.0, 20.0), (100.0, 100.0)])

    # The middle point is above a line that lies between it and the others.
    assert law.miss == pytest.approx(max(20 / law(10) - 1, 1 - 1 / law(1)))


@pytest.mark.parametrize("power", [0.0, -1.0])
def test_a_law_that_does_not_grow_reaches_nothing(power: float) -> None:
    assert Law(1.0, power, 0.0).reaches(100.0) is None


def test_work_is_of_the_models_that_are_retrained() -> None:
    (whole,) = sizes_of([a_reference(2)]).values()
    (without,) = sizes_of([a_reference(2, gone=True)]).values()

    assert whole.work == 2 * 400 * 20 * 4_000
    assert (without.samples, without.work) == ({"r2": 400}, whole.work / 2)


def test_where_a_request_is_a_hundred_times_faster() -> None:
    references, cells = a_run()

    (row,) = law_table(growths_of(references, cells), references, cells).rows

    # work 1e-7 / (work ** 0.5 1e-5) = 100 at a work of 1e8, which takes 10 s of retraining.
    assert row[:5] == ("class", "ours", "1.00", "0.50", "0 %")
    assert row[7:9] == (row[6], "10 s")
    assert "far off" in row[9] or "min" in row[9], "with two seconds of set-up it is later"
    assert row[10] == "3 of 3"


def test_a_replay_of_roots_bounds_the_ratio() -> None:
    references, cells = a_run()
    references[-1]["declaration"]["samples"] = 500
    for one in cells:
        if one["method"] == "ours":
            one["chosen"] = {"r1": {"changes": {"r1": ["replay", True]}}, "r2": "refused"}

    (row,) = law_table(growths_of(references, cells), references, cells).rows

    # 2,000 samples of two models, beside 1,000 without those to forget and 1,500 with them.
    assert row[8:10] == ("never: at most 0.8", "never: at most 0.8")


def test_a_root_whose_owner_left_is_not_trained_again() -> None:
    _, cells = a_run()
    references = [a_reference(number, gone=True) for number in (1, 2, 3)]
    for one in cells:
        one["chosen"] = {"r1": {"changes": {"r1": ["replay", True]}}}

    (growth,) = growths_of(references, cells)

    assert growth.bound is None


def test_the_page_has_forgetting_beside_time() -> None:
    references, cells = a_run(forget=3.0)
    cells.append(a_cell("broken", 2, 1.0, not_applicable="it refused"))

    text = render_growth(
        run_record("retraining", "ours"), references, cells, "What holds.", "a/scale.svg"
    )

    assert "> What holds." in text
    assert "| 0 of 3 |" in text
    assert "- broken: it refused (class, size 2)" in text
    assert "](a/scale.svg)" in text
    assert "| 3.0 / 0.0 / 90.0 | 0.520 / 0.500 / 0.600 | 89.5 / 90.0 / — | **no** | yes |" in text


@pytest.mark.parametrize(("forget", "forgot"), [(9.0, "yes"), (9.1, "**no**")])
def test_samples_are_judged_by_what_retraining_takes_and_held_out_data(
    forget: float, forgot: str
) -> None:
    references = [a_reference(number, "samples") for number in (1, 2)]
    sort: Record = {"request": "samples", "granularity": "samples", "forget": forget}
    cells = [
        a_cell(method, number, seconds, **sort)
        for number in (1, 2)
        for method, seconds in (("retraining", 9.0), ("ours", 1.0))
    ]

    text = render_growth(run_record("retraining", "ours"), references, cells)

    # Of 90 points that retraining takes a tenth is left, or more; two points of test accuracy go.
    assert f"| {forgot} | **no** |" in text
    assert "never: it does not grow" in text


def test_the_plot_has_each_point_and_its_law() -> None:
    references, cells = a_run()

    image = draw_growth(references, cells)

    assert image.startswith("<svg")
    assert "prefers-color-scheme" in image
    assert image.count('class="mark"') == 3
    assert image.count('class="curve"') == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("label", "labels such as 'class, size 1'"),
        ("parameters", "an older Disinherit measured it"),
        ("cells", "at two sizes"),
    ],
)
def test_a_run_without_sizes_is_refused(changed: str, said: str) -> None:
    references, cells = a_run()
    if changed == "label":
        references = [one | {"label": "one class"} for one in references]
    elif changed == "parameters":
        del references[0]["models"]["r1"]["parameters"]
    else:
        cells = cells[:2]

    with pytest.raises(InputError, match=said):
        render_growth(run_record("ours"), references, cells)


def test_the_command_writes_page_and_plot(tmp_path: Path) -> None:
    references, cells = a_run()
    folder = tmp_path / "run"
    write_record(folder / "suite.json", run_record("retraining", "ours"))
    for one in references:
        write_record(folder / "references" / f"{one['case']}.json", one)
    for one in cells:
        write_record(folder / "cells" / one["case"] / f"{one['method']}.json", one)
    pack_run(folder, tmp_path / "scale.jsonl.gz")
    page, plot = tmp_path / "page.md", tmp_path / "figures" / "plot.svg"
    plot.parent.mkdir()

    pages = ["--markdown", str(page), "--picture", str(plot)]
    assert run(["bench", "scale", str(tmp_path / "scale.jsonl.gz"), *pages]) == 0
    assert "](figures/plot.svg)" in page.read_text()
    assert plot.read_text().startswith("<svg")


def test_page_and_plot_are_made_from_the_stored_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command of `make results`, so that its note is whole as well."""
    monkeypatch.chdir(ROOT)
    command = results_command("scale")
    stored = ("docs/results-scale.md", "docs/figures/scale.svg")
    (tmp_path / "docs/figures").mkdir(parents=True)
    for name in stored:
        command[command.index(name)] = str(tmp_path / name)

    assert run(command) == 0

    for name in stored:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run `make results`"
