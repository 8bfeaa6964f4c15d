"""Several runs on one screen of Markdown: gaps by kind of request, aims met, and names."""

from collections.abc import Sequence

from disinherit.common.errors import InputError
from disinherit.documents.words import count
from disinherit.simulations.bench.aims import Judged, tally
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, markdown_table, quoted
from disinherit.simulations.bench.overview import EXPLANATION as OVERVIEW
from disinherit.simulations.bench.overview import overview_table
from disinherit.simulations.bench.report.parts import methods_table
from disinherit.simulations.bench.report.standings import EXPLANATION, judged_methods, totals


def render_overview(
    runs: Sequence[tuple[Record, Sequence[Record]]], note: str = "", methods: Sequence[str] = ()
) -> str:
    """Return a page of Markdown with the methods of several runs on one screen.

    Args:
        runs: the record of each run, with its cells; of the same labels, the last run counts.
        note: what has to be known first of these figures; `""` for nothing.
        methods: labels of those whose gaps are shown; all of them if it is empty.

    Raises:
        InputError: if no run has one of the methods.
    """
    cells, judged = _last(runs), judge_all(runs)
    gaps = overview_table([cell for _, found in cells.values() for cell in found])
    known = [row[0] for row in gaps.rows]
    shown = list(methods) or known
    if unknown := [one for one in shown if one not in known]:
        raise InputError(
            f"Expected methods of these runs ({', '.join(known)}), but got {unknown[0]!r}."
        )
    rows = tuple(
        (row[0], _aims(judged.get(row[0])), *row[1:]) for row in gaps.rows if row[0] in shown
    )
    table = TextTable((gaps.header[0], "aims met", *gaps.header[1:]), rows)
    glosses = {row[0]: row[1] for run, _ in runs for row in methods_table(run).rows}
    left_out = [one for one in known if one not in shown]
    parts = [
        "# Results",
        *([quoted(note)] if note else []),
        f"{OVERVIEW} {EXPLANATION}",
        markdown_table(table),
        *_missed(judged),
        "\n".join(f"- *{one}*: {glosses[one]}" for one, *_ in rows),
        *([f"Not shown: {', '.join(left_out)}."] if left_out else []),
        "Made from the stored figures of these suites by `make results`: "
        + "; ".join(_described(run, found) for run, found in runs)
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _aims(judged: Sequence[Judged] | None) -> str:
    return f"{totals(judged)[0]} of {totals(judged)[1]}" if judged else NO_FIGURE


def _missed(judged: dict[str, list[Judged]]) -> list[str]:
    """Return what the first method misses, in one sentence; nothing if it misses no aim."""
    for method, found in judged.items():
        lost = [one for one in tally(found) if one.missed]
        said = [f"“{one.aim}” in {len(one.missed)} of {one.judged}" for one in lost]
        return [f"Aims that {method} misses, by cases: {'; '.join(said)}."] if said else []
    return []


def judge_all(runs: Sequence[tuple[Record, Sequence[Record]]]) -> dict[str, list[Judged]]:
    """Return what became of the aims of each method in several runs.

    Args:
        runs: as in `render_overview`.
    """
    judged: dict[str, list[Judged]] = {}
    for run, found in _last(runs).values():
        for method, aims in judged_methods(run, found).items():
            judged.setdefault(method, []).extend(aims)
    return judged


def _last(
    runs: Sequence[tuple[Record, Sequence[Record]]],
) -> dict[str, tuple[Record, Sequence[Record]]]:
    """Return label -> the last run that has it, with its cells."""
    cells: dict[str, tuple[Record, Sequence[Record]]] = {}
    for run, found in runs:
        for label in dict.fromkeys(cell["label"] for cell in found):
            cells[label] = run, [cell for cell in found if cell["label"] == label]
    return cells


def _described(run: Record, cells: Sequence[Record]) -> str:
    return (
        f"`{run['suite']['name']}`: {count(len({c['case'] for c in cells}), 'case')}, "
        f"{count(len({c['seed'] for c in cells}), 'seed')}, {count(len(cells), 'cell')}; torch "
        f"{run['environment']['torch']}"
    )
