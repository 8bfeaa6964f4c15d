"""How many of its aims each method meets, and where not; and what is said of a run first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disinherit.documents.verdict import Level, Verdict
from disinherit.documents.words import count, joined, typographic
from disinherit.simulations.bench.aims import AimTally, Judged, judge, tally
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable
from disinherit.simulations.bench.overview import overview_table

EXPLANATION = (
    "Aims were set before the run. An aim is not judged where a single seed or a missing figure "
    "cannot tell; this counts as neither met nor missed."
)

_NAMED = 4
"""Cases that are named where an aim is missed."""


@dataclass(frozen=True, slots=True)
class AimsMet:
    """How many aims a method meets.

    Attributes:
        method: its label.
        all: of all aims, in words with a level.
        aims: the same for each aim; `—` for one that it does not have.
    """

    method: str
    all: tuple[str, Level]
    aims: tuple[tuple[str, Level], ...]


def judged_methods(run: Record, cells: Sequence[Record]) -> dict[str, list[Judged]]:
    """Return what became of the aims of each method that a suite judges."""
    declared = run["suite"].get("aims")
    if not declared:
        return {}
    return {method: judge(cells, method, declared["rival"]) for method in declared["methods"]}


def aims_matrix(judged: Mapping[str, Sequence[Judged]]) -> tuple[list[str], list[AimsMet]]:
    """Return the aims, and for each method how many of all and of each it meets."""
    tallies = {method: {one.aim: one for one in tally(found)} for method, found in judged.items()}
    aims = _alike(list(dict.fromkeys(aim for found in tallies.values() for aim in found)))
    rows = []
    for method, found in judged.items():
        cells = [_met(tallies[method].get(aim)) for aim in aims]
        rows.append(AimsMet(method, _level(*totals(found)), tuple(cells)))
    return aims, rows


def aims_table(judged: Mapping[str, Sequence[Judged]]) -> TextTable:
    """Return a row for each method: how many of all aims, and of each, it meets."""
    aims, rows = aims_matrix(judged)
    cells = ((one.method, one.all[0], *(text for text, _ in one.aims)) for one in rows)
    return TextTable(("method", "aims met", *aims), tuple(cells))


def missed_table(judged: Mapping[str, Sequence[Judged]]) -> TextTable:
    """Return a row for each aim that a method misses: in how many cases, and in which."""
    rows = [
        (method, one.aim, f"{len(one.missed)} of {one.judged}", _where(one))
        for method, found in judged.items()
        for one in tally(found)
        if one.missed
    ]
    return TextTable(("method", "aim", "missed in", "cases"), tuple(rows))


def aims_values(judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """Return method -> how many aims it meets, and each aim, as values of JSON."""
    return {
        method: {
            "met": totals(found)[0],
            "judged": totals(found)[1],
            "aims": [
                {
                    "aim": one.aim,
                    "met": one.met,
                    "judged": one.judged,
                    "not_judged": one.open,
                    "missed": [{"case": lost.label, "figure": lost.figure} for lost in one.missed],
                }
                for one in tally(found)
            ],
        }
        for method, found in judged.items()
    }


def totals(judged: Sequence[Judged]) -> tuple[int, int]:
    """Return how many aims are met, and how many could be judged."""
    return sum(one.met is True for one in judged), sum(one.met is not None for one in judged)


def verdict(
    judged: Mapping[str, Sequence[Judged]], gates: Sequence[str], cells: Sequence[Record]
) -> Verdict:
    """Return what a run comes to, in one sentence, and where it falls short.

    Args:
        judged: the aims of each method, the one that matters most first.
        gates: sanity gates that were not passed.
        cells: of the run.
    """
    reservations = [f"A sanity gate was not passed: {reason}" for reason in gates]
    if not judged:
        rows = overview_table(cells).rows
        if not rows or rows[0][-1] == NO_FIGURE:
            return Verdict("Nothing was measured yet.", "neutral", reservations)
        sentence = (
            f"Nearest to exact retraining in its worst kind of request: {rows[0][0]}, "
            f"{rows[0][-1]} points away. This suite has no aims."
        )
        return Verdict(sentence, "bad" if gates else "neutral", reservations)
    (first, found), *others = judged.items()
    met, of = totals(found)
    sentence = f"{first} meets {met} of {count(of, 'aim')}"
    if others:
        scores = [f"{method} {_level(*totals(one))[0]}" for method, one in others]
        sentence += f"; {joined(scores)}"
    for one in tally(found):
        if one.missed:
            reservations.append(
                f"{first} misses “{one.aim}” in {len(one.missed)} of {count(one.judged, 'case')}"
                f"{': ' + typographic(_where(one)) if len(one.missed) < one.judged else ''}."
            )
        if one.open:
            reservations.append(
                f"“{one.aim}” could not be judged in {count(one.open, 'case')} of {first}."
            )
    level: Level = "bad" if gates else "warning" if reservations else "good"
    return Verdict(f"{sentence}.", level, reservations)


def _alike(aims: Sequence[str]) -> list[str]:
    """Return aims in their order, but those that differ in their threshold only side by side."""
    names = [aim.partition(" at most")[0] for aim in aims]
    return sorted(aims, key=lambda aim: names.index(aim.partition(" at most")[0]))


def _met(one: AimTally | None) -> tuple[str, Level]:
    return (NO_FIGURE, "neutral") if one is None else _level(one.met, one.judged)


def _level(met: int, of: int) -> tuple[str, Level]:
    if not of:
        return "not judged", "neutral"
    return f"{met} of {of}", "good" if met == of else "warning" if met else "bad"


def _where(one: AimTally) -> str:
    named = [f"{missed.label} ({missed.figure})" for missed in one.missed]
    if len(named) <= _NAMED:
        return "; ".join(named)
    return f"{'; '.join(named[: _NAMED - 1])}; and {len(named) - _NAMED + 1} more"
