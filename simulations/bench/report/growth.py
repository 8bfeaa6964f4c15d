"""The page of suite `scale`: the law, the size from which on a request is 100 times faster, a plot.

Time says nothing unless something was forgotten, so forgetting stands beside it in each row.
"""

import math
from collections.abc import Sequence

from disinherit.documents.growth_plots import Series, growth_plot
from disinherit.documents.pages import environment
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, markdown_table, quoted
from disinherit.simulations.bench.means import panel_of
from disinherit.simulations.bench.panel.sanity import guess_error
from disinherit.simulations.bench.report.parts import finished, missing_notes
from disinherit.simulations.bench.report.text import run_sections
from disinherit.simulations.bench.scaling import (
    WANTED,
    Growth,
    Law,
    Timed,
    growths_of,
    sizes_of,
)

POINTS = 1.0
"""Percentage points of accuracy that a method may lose beside retraining, and still keep what is to
be kept."""

_FORGOTTEN = 0.5
_LEFT = 0.1
_ERRORS = 3.0
_BY_CLASS = ("class", "classes")
_FAR = 10.0

_LAWS = (
    "Powers are fitted by least squares of logarithms: CPU seconds = factor x work ^ power. "
    "*Ratio* is retraining over unlearning, without set-up. *Foretold* is the ratio at the "
    f"largest size by the law of the smaller ones alone. *{WANTED:g} times from*: at what CPU "
    f"seconds of retraining unlearning takes {WANTED:g} times less, by the law; *far off* is more "
    f"than {_FAR:g} times what was measured. *With set-up*: what was done when the models were "
    "trained counts for this request alone, though it serves all later ones, too. *At most*: "
    "roots are trained again, twice each (without the samples, and with all, to see that this "
    "gives the present weights), beside each model once, so that the ratio is bounded, whatever "
    "the size. The last column: at how many sizes it forgot, and kept the rest, as defined below."
)
_FORGETTING = (
    "CPU seconds of one thread. *Forgot*: of a class, at most "
    f"{_FORGOTTEN:g} points more of its held-out samples are named than after retraining; of "
    "samples and clients, at least nine tenths of what retraining takes from forget accuracy, and "
    "the loss attack finds no more than after retraining, but for "
    f"{_ERRORS:g} standard errors of a guess. *Kept*: at most {POINTS:g} point less than after "
    "retraining of retain accuracy (class) or test accuracy (samples, client). Means over models. "
    "Attacks with shadow models (LiRA) were left out: they would train four times as much as all "
    "else here."
)


def render_growth(
    run: Record,
    references: Sequence[Record],
    cells: Sequence[Record],
    note: str = "",
    picture: str = "",
) -> str:
    """Return the page in Markdown.

    Args:
        run: the run's record.
        references: the records of its cases.
        cells: the records of its cells.
        note: what has to be known first; `""` for nothing.
        picture: where the plot is, as a link; `""` for none.

    Raises:
        InputError: if the run has no request at several sizes.
    """
    growths = growths_of(references, cells)
    name = run["suite"]["name"]
    parts = [
        f"# Results: suite `{name}`",
        *([quoted(note)] if note else []),
        f"Made by `disinherit bench run {name} --out DIR` and `disinherit bench scale DIR`. "
        f"{finished(run, references, cells)}",
        "## The law",
        *([f"![{description(growths)}]({picture})"] if picture else []),
        _LAWS,
        markdown_table(law_table(growths, references, cells)),
        "## The sizes",
        "Work is samples x epochs x parameters, summed over the models that are retrained.",
        markdown_table(size_table(references)),
        "## Time, and what was forgotten",
        _FORGETTING,
        markdown_table(forgetting_table(growths, references, cells)),
        *run_sections(run, references),
    ]
    if refused := missing_notes([cell for cell in cells if cell["not_applicable"]]):
        parts += ["## Not measured, and why", "\n".join(f"- {one}" for one in refused)]
    return "\n\n".join(parts) + "\n"


def draw_growth(references: Sequence[Record], cells: Sequence[Record]) -> str:
    """Return the plot as an SVG file: how many times faster, by CPU seconds of retraining.

    Args:
        references: of a run.
        cells: of the run.

    Raises:
        InputError: if the run has no request at several sizes.
    """
    growths = growths_of(references, cells)
    series = []
    for one in growths:
        points = [(timed.retraining, timed.ratio) for timed in one.timed]
        first, last = one.timed[0].size.work, one.timed[-1].size.work
        whole, own = one.law(_retraining), one.law(_seconds)
        ends = [(whole(work), whole(work) / own(work)) for work in (first, last)]
        series.append(Series(f"{one.request}, {one.method}", points, ends))
    image = growth_plot(
        series,
        WANTED,
        "CPU seconds of retraining",
        "times faster",
        description(growths),
    )
    return environment().get_template("plot.svg.j2").render(image=image) + "\n"


def description(growths: Sequence[Growth]) -> str:
    """Return what the plot shows, for those who do not see it."""
    best = max(growths, key=lambda one: one.timed[-1].ratio)
    return (
        f"Times that unlearning is faster than retraining, by the CPU seconds of retraining, of "
        f"{len(growths)} methods and requests; at most {best.timed[-1].ratio:.0f} ({best.request}, "
        f"{best.method})"
    )


def law_table(
    growths: Sequence[Growth], references: Sequence[Record], cells: Sequence[Record]
) -> TextTable:
    """Return the law of every method and request, and where it gets to 100 times."""
    measured = _Measured(references, cells)
    rows = []
    for one in growths:
        whole, own = one.law(_retraining), one.law(_seconds)
        judged = [_judged(*measured.at(timed)) for timed in one.timed]
        good = sum(forgot is True and kept is True for forgot, kept in judged)
        rows.append(
            (
                one.request,
                one.method,
                f"{whole.power:.2f}",
                f"{own.power:.2f}",
                f"{100 * max(whole.miss, own.miss):.0f} %",
                _ratio(one.timed[0].ratio),
                _ratio(one.timed[-1].ratio),
                _foretold(one),
                _from(one, whole, own),
                _from(one, whole, one.law(_with_setup)),
                f"{good} of {len(judged)}",
            )
        )
    return TextTable(
        (
            "request",
            "method",
            "power, retraining",
            "power, unlearning",
            "points off by at most",
            "ratio, smallest",
            "ratio, largest",
            "foretold",
            f"{WANTED:g} times from",
            "with set-up",
            "forgot and kept, sizes",
        ),
        tuple(rows),
    )


def size_table(references: Sequence[Record]) -> TextTable:
    """Return what each size of each request is."""
    rows = tuple(
        (
            size.request,
            str(size.number),
            size.network,
            f"{size.parameters:,}",
            f"{sum(size.samples.values()) / len(size.samples):,.0f}",
            str(size.epochs),
            str(len(size.samples)),
            f"{size.work:.2g}",
        )
        for size in sizes_of(references).values()
    )
    return TextTable(
        (
            "request",
            "size",
            "network",
            "parameters",
            "samples a model",
            "epochs",
            "models retrained",
            "work",
        ),
        rows,
    )


def forgetting_table(
    growths: Sequence[Growth], references: Sequence[Record], cells: Sequence[Record]
) -> TextTable:
    """Return time and forgetting of each method at each size."""
    measured = _Measured(references, cells)
    rows = []
    for one in growths:
        for timed in one.timed:
            cell, reference = measured.at(timed)
            panel, kept = panel_of(cell), _kept_by(cell)
            rows.append(
                (
                    f"{one.request}, size {timed.size.number}",
                    one.method,
                    f"{timed.retraining:.2f}",
                    f"{timed.seconds:.2f}",
                    f"{timed.setup:.2f}",
                    _ratio(timed.ratio),
                    _ratio(timed.whole_ratio),
                    _three(panel.get("forget_accuracy"), reference, "forget_accuracy", 1),
                    _three(panel.get("loss_attack_auc"), reference, "loss_attack_auc", 3),
                    _three(panel.get(kept), reference, kept, 1),
                    *map(_yes, _judged(cell, reference)),
                )
            )
    return TextTable(
        (
            "request",
            "method",
            "retraining, s",
            "unlearning, s",
            "set-up, s",
            "ratio",
            "with set-up",
            "forget accuracy: now / retrained / before, %",
            "loss attack, AUC: the same",
            "retain or test accuracy, %: the same",
            "forgot",
            "kept",
        ),
        tuple(rows),
    )


class _Measured:
    def __init__(self, references: Sequence[Record], cells: Sequence[Record]) -> None:
        self._cells = {(cell["case"], cell["method"]): cell for cell in cells}
        self._references = {reference["case"]: reference for reference in references}

    def at(self, timed: Timed) -> tuple[Record, Record]:
        """Return the cell of a method at one size, and the reference of its case."""
        return self._cells[timed.size.case, timed.method], self._references[timed.size.case]


def _retraining(timed: Timed) -> float:
    return timed.retraining


def _seconds(timed: Timed) -> float:
    return timed.seconds


def _with_setup(timed: Timed) -> float:
    return timed.seconds + timed.setup


def _foretold(growth: Growth) -> str:
    """Return the ratio at the largest size by the law of the smaller ones; two are too few."""
    smaller = len(growth.timed) - 1
    if smaller < 2:
        return NO_FIGURE
    work = growth.timed[-1].size.work
    whole, own = growth.law(_retraining, smaller), growth.law(_seconds, smaller)
    return _ratio(whole(work) / own(work))


def _from(growth: Growth, whole: Law, own: Law) -> str:
    """Return from which CPU seconds of retraining on a request takes 100 times less."""
    if growth.bound is not None and growth.bound < WANTED:
        return f"never: at most {_ratio(growth.bound)}"
    ratio = Law(whole.factor / own.factor, whole.power - own.power, 0.0)
    work = ratio.reaches(WANTED)
    if work is None:
        return "never: it does not grow"
    seconds, largest = whole(work), growth.timed[-1].retraining
    if seconds > _FAR * largest:
        return f"{_duration(seconds)}, far off"
    return _duration(seconds)


def _duration(seconds: float) -> str:
    """Return a duration with two digits.

    Example:
        >>> _duration(0.456), _duration(95.0), _duration(600.0), _duration(36000.0)
        ('0.46 s', '95 s', '10 min', '10 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:,.0f} h"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _three(
    entry: dict[str, float | None] | None, reference: Record, metric: str, digits: int
) -> str:
    """Return a metric now, after retraining, and before."""
    values = (
        None if entry is None else entry["value"],
        None if entry is None else entry["reference"],
        _before(reference, metric),
    )
    return " / ".join(NO_FIGURE if one is None else f"{one:.{digits}f}" for one in values)


def _kept_by(cell: Record) -> str:
    """Return the metric of what is to be kept."""
    return "retain_accuracy" if cell["granularity"] in _BY_CLASS else "test_accuracy"


def _judged(cell: Record, reference: Record) -> tuple[bool | None, bool | None]:
    """Whether a method forgot, and kept the rest, as retraining does; `None` if not measured."""
    panel = panel_of(cell)
    lost = _gap(panel, _kept_by(cell))
    forgot = _forgot(panel, reference, by_class=cell["granularity"] in _BY_CLASS)
    return forgot, None if lost is None else lost >= -POINTS


def _forgot(
    panel: dict[str, dict[str, float | None]], reference: Record, *, by_class: bool
) -> bool | None:
    left, found = _gap(panel, "forget_accuracy"), _gap(panel, "loss_attack_auc")
    before = _before(reference, "forget_accuracy")
    if left is None or before is None:
        return None
    if by_class:
        return left <= _FORGOTTEN
    if found is None:
        return None
    retrained = panel["forget_accuracy"]["reference"]
    assert retrained is not None
    return left <= _LEFT * (before - retrained) and found <= _ERRORS * _error(reference)


def _gap(panel: dict[str, dict[str, float | None]], metric: str) -> float | None:
    return panel[metric]["gap"] if metric in panel else None


def _before(reference: Record, metric: str) -> float | None:
    """Return the mean of a metric over the original models of the owners who stay."""
    found = [model for model in reference["models"].values() if not model["gone"]]
    values = [model["original"]["values"].get(metric) for model in found]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _error(reference: Record) -> float:
    """Return the standard error of a guess, of the model with the fewest samples looked at."""
    found = [model["tested"] for model in reference["models"].values() if not model["gone"]]
    return max(guess_error(one["forget"], one["retain"]) for one in found)


def _yes(answer: bool | None) -> str:
    return {True: "yes", False: "**no**", None: NO_FIGURE}[answer]
