"""The page of the family benchmark: members by methods, each beside the retrained member."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from disinherit.common.errors import DataError
from disinherit.simulations.bench.markdown import TextTable, markdown_table

Rows = Mapping[str, Mapping[str, Any]]
"""Method -> its figures of one request and seed."""

RETRAINED = "retrained"
"""Row of the family that was trained again without the samples."""

RELEARNING_STEPS = 20
"""Steps of training on other authors, after which a member is asked again."""

_FIGURES: Mapping[str, tuple[str, int]] = {
    "exact_match": ("asked as in the training: answered word for word, %", 100),
    "exact_match_paraphrased": ("asked in other words: answered word for word, %", 100),
    "rouge": ("ROUGE-L recall of answers, %", 100),
    "truth_ratio": ("truth ratio", 1),
    "forget_quality": ("forget quality: p-value against the retrained member", 1),
    "extraction_strength": ("extraction strength of biographies, %", 100),
    "min_k_auc": ("Min-K% against unseen authors, AUC", 1),
    "utility": ("other authors: answered word for word, %", 100),
    "world_loss": ("loss on unseen real texts, nats a token", 1),
}
"""Figure of the panel -> its title, and what its values are multiplied by."""


def read_figures(file: Path) -> dict[str, Any]:
    """Return the figures of families that a file has.

    Raises:
        DataError: if it cannot be read, or has no such figures.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
        for one in found["runs"]:
            _ = one["seed"], one["authors"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"Expected figures of families in {file}, but got {error}.") from None
    return found


def render(measured: Mapping[str, Any]) -> str:
    """Return the page of one or more runs, as Markdown.

    Args:
        measured: `environment`, and `runs`, figures of `run` for each seed.
    """
    runs: Sequence[Mapping[str, Any]] = measured["runs"]
    first = runs[0]
    seeds = ", ".join(str(one["seed"]) for one in runs)
    parts = [
        "# A family of language models",
        _INTRODUCTION.format(
            authors=first["authors"],
            parameters=f"{first['parameters']:,}",
            megabytes=f"{first['parameters'] * 4 / 1e6:.1f}",
            seeds=seeds,
        ),
    ]
    if found := _FINDINGS.get(first["authors"]):
        parts.append(found)
    for name, request in max((one["requests"] for one in runs), key=len).items():
        rows = [one["requests"][name]["rows"] for one in runs if name in one["requests"]]
        parts += [
            f"## {name.capitalize()}: {request['samples']} texts",
            "**What each member still answers word for word, in percent** (the retrained member in "
            "brackets):",
            markdown_table(_leaks(rows)),
            "**Means over the members:**",
            markdown_table(_means(rows)),
            "**What others may do with it, and seconds.** Questions about the forgotten that are "
            f"answered word for word: after {RELEARNING_STEPS} steps of training on other authors "
            "(mean of base and fine-tunes), and by the average of the unlearned chat model with a "
            "domain model that was not. Seconds of the method on all members; the replay of the "
            "base, which its change needs, is not in them: it took "
            f"{_replay(runs, name):.0f} s of {_whole(runs, name):.0f} s for the whole family.",
            markdown_table(_after(rows)),
        ]
    environment = ", ".join(f"{key}: {value}" for key, value in measured["environment"].items())
    parts += [*_absent(runs), _cost(runs), f"Measured with {environment}."]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """A small decoder with Llama's architecture ({parameters} parameters) learned
{authors} fictitious authors and real texts. From it descend: `chat` and `domain`, fine-tuned on
other texts; an adapter on each; a linear and a TIES merge of them; `folded`, the domain model with
its adapter; `int8` and `nf4`, quantised copies of the merges. Only the base was trained on the
texts to forget. `q4_0`, where it is there, is the folded model in the blocks of GGUF. Seeds:
{seeds}.

All methods leave adapters as they are, and computed members are computed again from what the method
made of their parents. Methods of others are applied to the base and to each fine-tune in turn,
until the texts are as surprising as those of unseen authors, which an owner can see. `change: ...`
is computed at the base alone and added to the fine-tunes: one request, and one packet of
{megabytes} MB from the base for the whole family. A campaign with owners and messages gives the
same weights, bit for bit (`tests/simulations/family/test_campaign.py`)."""

_FINDINGS: Mapping[int, str] = {
    40: """What holds: after `change: replay` members, `q4_0` among them, answer as few questions
about the forgotten as the retrained family does, within a percent, also asked in other words and
after learning other authors; and all know the other authors as before. What does not: merged with a
sibling that was not unlearned, an eighth of the questions about eight authors comes back; and
members are worse on unseen real texts, by 0.4 nats a token, of which a few steps of repair bring
back about half. Training again without nine texts leads these small models somewhere else: the
change is about as long as all that the base learned. It carries the fine-tunes along because their
own updates are short beside it. A fine-tune that went far, and larger models, were not measured
here. `change: EK-FAC`, whose strength nothing tunes here, does not forget: members still answer
71 % of the questions about one author and 35 % of those about eight, of whose others it loses four
tenths. Of the methods of others those that stop in time keep what they are to keep for one author
(gradient difference and NPO: 90 %), and leave 11 % of the answers; for eight authors all forget and
lose three fifths of the others or more. Seeds differ: these two leave up to 43 % of one author's
answers in the first family, and none in the second. A seed takes six and a half minutes on two
cores, where its requests are measured at the same time.""",
    200: """What holds: `change: replay` takes one author, twenty, and a contributor of a quarter of
all authors out of every member, down to copies of 4 bits, within a few percent of the retrained
family, also asked in other words and after learning other authors; and the others are known as
before. No other method here does that for more than one author. For twenty, what forgets leaves at
most 70 % of the questions about other authors (NPO), for fifty at most 30 %; gradient ascent, task
vectors, MSA and EK-FAC leave models that know nobody. NPO and gradient difference hide more than
they forget: after 20 steps on other authors a fifth to a quarter of the questions about the
forgotten is answered again, and merged with a sibling a third and more.

What does not hold: after `change: replay` unseen real texts are more surprising by over half a nat
a token, of which a few steps of repair bring back half; and merged with a sibling that was not
unlearned, a tenth of the questions about twenty authors and about fifty comes back. For one author,
gradient ascent, gradient difference and NPO, member by member, forget as well as the change and
leave real texts as they were; merged with a sibling, one question of seven comes back.
`change: EK-FAC`, a step without retained data whose strength nothing tunes here, is of use for no
request: it leaves a part of what was known of one author, and of more it destroys the model.
Strengths of methods of others were not tuned by hand for each request: all stop at what an owner
can see.

One seed, so that differences of some percent may be chance; up to ten of the authors to forget are
asked about, and twenty others. Seconds were taken on a machine that did other work, too. A whole
seed takes about an hour of one core, so that the aim of two hours on two cores is met.""",
}
"""Number of authors of a family -> what its figures say."""


def _methods(rows: Sequence[Rows]) -> list[str]:
    """Return the methods of one request that were measured for at least one seed."""
    most = max(rows, key=len)
    return [*most, *{name: None for row in rows for name in row if name not in most}]


def _absent(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line about the cells that some seeds lack; nothing if there are none."""
    found = []
    for one in runs:
        for name in max((run["requests"] for run in runs), key=len):
            rows = [run["requests"][name]["rows"] for run in runs if name in run["requests"]]
            has = one["requests"].get(name, {}).get("rows", {})
            if gone := [method for method in _methods(rows) if method not in has]:
                found.append(f"seed {one['seed']}, {name}: {', '.join(gone)}")
    if not found:
        return []
    return [f"Not measured, and so not in the means ({len(runs)} seeds): {'; '.join(found)}."]


def _cost(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a line about what a seed takes to compute."""
    totals = []
    for one in runs:
        cells = [cell for request in one["requests"].values() for cell in request["rows"].values()]
        panels = [
            cell["measuring_cpu_seconds"] for cell in cells if "measuring_cpu_seconds" in cell
        ]
        spent = [_computed(cell, "") for cell in cells]
        if panels:
            whole = _computed(one, "training_") + sum(spent) + fmean(panels) * len(cells)
            totals.append(f"seed {one['seed']}: {whole / 60:.0f} minutes ({len(cells)} cells)")
    if not totals:
        return "CPU time was not kept."
    return (
        f"CPU time of one thread, for training, methods and panels: {'; '.join(totals)}. Where CPU "
        "time was not kept, time on the clock stands for it, which is more, and the mean panel."
    )


def _computed(one: Mapping[str, Any], what: str) -> float:
    computed: float | None = one.get(f"{what}cpu_seconds")
    clock: float = one[f"{what}seconds"]
    return clock if computed is None else computed


def _leaks(rows: Sequence[Rows]) -> TextTable:
    methods = [name for name in _methods(rows) if name != RETRAINED]
    lines = []
    for member in max((row[RETRAINED]["members"] for row in rows), key=len):
        expected = _answered(rows, RETRAINED, member)
        cells = (f"{_answered(rows, method, member)} ({expected})" for method in methods)
        lines.append((member, *cells))
    return TextTable(("", *methods), tuple(lines))


def _means(rows: Sequence[Rows]) -> TextTable:
    lines = []
    methods = _methods(rows)
    for figure, (title, factor) in _FIGURES.items():
        cells = []
        for method in methods:
            members = [one for row in _having(rows, method) for one in row["members"].values()]
            known = [one[figure] for one in members if one[figure] is not None]
            digits = 1 if factor > 1 else 2
            cells.append(f"{factor * fmean(known):.{digits}f}" if known else "—")
        lines.append((title, *cells))
    return TextTable(("", *methods), tuple(lines))


def _after(rows: Sequence[Rows]) -> TextTable:
    learned, merged, seconds, computed = [], [], [], []
    methods = _methods(rows)
    for method in methods:
        found = _having(rows, method)
        again = fmean(value for one in found for value in one["relearned"].values())
        learned.append(f"{100 * again:.0f}")
        merged.append(f"{100 * fmean(one['merged'] for one in found):.0f}")
        seconds.append(f"{fmean(one['seconds'] for one in found):.1f}")
        known = [one["cpu_seconds"] for one in found if one.get("cpu_seconds") is not None]
        computed.append(f"{fmean(known):.1f}" if known else "—")
    return TextTable(
        ("", *methods),
        (
            ("after learning other authors, %", *learned),
            ("merged with a sibling, %", *merged),
            ("seconds", *seconds),
            ("CPU seconds", *computed),
        ),
    )


def _having(rows: Sequence[Rows], method: str) -> list[Mapping[str, Any]]:
    return [row[method] for row in rows if method in row]


def _answered(rows: Sequence[Rows], method: str, member: str) -> str:
    found = [one["members"].get(member) for one in _having(rows, method)]
    known = [one["exact_match"] for one in found if one is not None]
    return f"{100 * fmean(known):.0f}" if known else "—"


def _replay(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(one["requests"][name]["replay_seconds"] for one in runs if name in one["requests"])


def _whole(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    rows = [one["requests"][name]["rows"] for one in runs if name in one["requests"]]
    return fmean(one["seconds"] for one in _having(rows, RETRAINED))
