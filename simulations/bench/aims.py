"""Aims of a suite, judged from the figures: met, or not.

Which methods, and against which rival, the suite declares.  The thresholds are those of
`docs/evaluation.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.comparisons import compare
from disinherit.simulations.bench.markdown import number
from disinherit.simulations.bench.means import PANEL, RETRAINING, Summary, Table, summarise
from disinherit.simulations.bench.statistics import Interval

FORGET_AT_MOST = 0.5
"""Percent of held-out samples of a forgotten class that may still be named so."""

RETAIN_WITHIN = {"class": 0.5, "classes": 1.0}
"""Points of retain accuracy that may be lost against exact retraining."""

TEST_WITHIN = 1.0
"""Points of test accuracy, up or down, that samples may cost against exact retraining."""

TIMES_FASTER = 100.0
"""How many times less time than replaying the retraining."""

CLOSER_ON = 2
"""Metrics on which the method is to be closer to retraining than its rival, beyond noise."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One aim on one label of cases.

    Attributes:
        label: of the cases.
        aim: what was aimed at.
        figure: what was measured.
        met: whether the figure reaches the aim; `None` where nothing was measured.
    """

    label: str
    aim: str
    figure: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class AimTally:
    """One aim on all labels of cases that a method was judged on.

    Attributes:
        aim: what was aimed at.
        met: number of labels where it is met.
        judged: number of labels where it could be judged.
        missed: where it is not met.
        open: number of labels where it could not be judged.
    """

    aim: str
    met: int
    judged: int
    missed: tuple[Judged, ...]
    open: int


def tally(judged: Sequence[Judged]) -> list[AimTally]:
    """Return how often each aim is met, in the order in which the aims come first."""
    by_aim: dict[str, list[Judged]] = {}
    for one in judged:
        by_aim.setdefault(one.aim, []).append(one)
    return [
        AimTally(
            aim,
            sum(one.met is True for one in found),
            sum(one.met is not None for one in found),
            tuple(one for one in found if one.met is False),
            sum(one.met is None for one in found),
        )
        for aim, found in by_aim.items()
    ]


def judge(cells: Sequence[Record], method: str, rival: str) -> list[Judged]:
    """Judge a method on every label of a run.

    Args:
        cells: of the run.
        method: label of the method.
        rival: label of the method that is never to be better.

    Returns:
        The aims of each label that the method was run on.
    """
    granularity = {cell["label"]: cell["granularity"] for cell in cells}
    found = []
    for label, table in summarise(cells).items():
        if method in table:
            row, kind = table[method], granularity[label]
            by_class = kind in RETAIN_WITHIN
            found += _class_aims(label, row, kind) if by_class else _sample_aims(label, row)
            found.append(_time_aim(label, table, method))
            if by_class and rival in table:
                found.append(_rival_aim(cells, label, method, rival))
    return found


def _class_aims(label: str, row: Mapping[str, Summary], kind: str) -> list[Judged]:
    forget, retain = row["forget_accuracy"].value, row["retain_accuracy"].gap
    allowed = RETAIN_WITHIN[kind]
    return [
        Judged(
            label,
            f"forget accuracy at most {FORGET_AT_MOST} %",
            f"{number(forget, 2)} %",
            None if forget is None else forget.mean <= FORGET_AT_MOST,
        ),
        Judged(
            label,
            f"retain accuracy at most {allowed} points below retraining",
            f"{_signed(retain)} points",
            None if retain is None else retain.mean >= -allowed,
        ),
    ]


def _sample_aims(label: str, row: Mapping[str, Summary]) -> list[Judged]:
    attack, test = row["lira_tpr"].gap if "lira_tpr" in row else None, row["test_accuracy"].gap
    return [
        Judged(
            label,
            "LiRA finds no more than in the retrained models, within noise",
            f"{_signed(attack)} points of TPR",
            None if attack is None or attack.half is None else attack.low <= 0,
        ),
        Judged(
            label,
            f"test accuracy within {TEST_WITHIN} point of retraining",
            f"{_signed(test)} points",
            None if test is None else abs(test.mean) <= TEST_WITHIN,
        ),
    ]


def _time_aim(label: str, table: Table, method: str) -> Judged:
    """Compare the clocks, without what a deployment did when the models were trained."""
    aim = f"{TIMES_FASTER:.0f} times less time than replaying the retraining"
    mine = table[method]["seconds"].value
    theirs = table[RETRAINING]["seconds"].value if RETRAINING in table else None
    if mine is None or theirs is None or mine.mean <= 0:
        return Judged(label, aim, number(None, 1), None)
    times = theirs.mean / mine.mean
    return Judged(label, aim, f"{times:.0f} times", times >= TIMES_FASTER)


def _rival_aim(cells: Sequence[Record], label: str, method: str, rival: str) -> Judged:
    compared = compare(cells, label, method, rival)
    titles = {metric.name: metric.title for metric in PANEL}
    better = [titles[one.metric] for one in compared if one.verdict == "closer"]
    worse = [titles[one.metric] for one in compared if one.verdict == "farther"]
    measured = any(one.difference.half is not None for one in compared)
    return Judged(
        label,
        f"closer to retraining than {rival} on at least {CLOSER_ON} metrics, farther on none",
        f"closer: {'; '.join(better) or 'none'}. Farther: {'; '.join(worse) or 'none'}",
        len(better) >= CLOSER_ON and not worse if measured else None,
    )


def _signed(gap: Interval | None) -> str:
    return number(None, 1) if gap is None else f"{'+' if gap.mean >= 0 else ''}{number(gap, 2)}"
