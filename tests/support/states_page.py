"""The reference of states, gaps, events and exit codes: run as a module, it writes the page."""

import inspect
from collections.abc import Iterator

from disinherit.common import errors
from disinherit.common.audit.gaps import DESCRIPTIONS
from disinherit.common.wire.remedies import REMEDIES
from disinherit.server.states import TRANSITIONS, CampaignState, TaskState
from disinherit.server.store.audit_events import DECISIONS, OF_TASK, AuditKind
from tests import ROOT
from tests.support.reference import meanings_of, one_line, table

PAGE = ROOT / "docs" / "states.md"
_HEAD = """# States, gaps, events and exit codes

The words that tables, reports, attestations, the audit log and metrics have for what became of a
request. What to do about each state of a model:
[states, outcomes](federation.md#5-states-outcomes-and-what-to-do).

This page is made from the code by `make reference`.
"""
OUTCOMES = {
    0: "done",
    1: "not all of it: a request that is not complete or could not be carried out, a version that "
    "is not covered, an audit log that is not sound, a registration that was refused, a method of "
    "a benchmark that failed, a program that does not run or serve, a machine that lacks something",
    130: "interrupted; the same command goes on",
}
"""Exit codes that are no error's alone."""


def page() -> str:
    """The page as it should be."""
    return "".join(
        [
            _HEAD,
            "\n## Of the work on a model\n\n",
            "*Settled*: its owner is not asked again unless a person decides so. *Complete*: it "
            "forgot, or need not.\n\n",
            table(("state", "meaning", "settled", "complete"), _tasks()),
            "\n## Of a campaign\n\n",
            "*Ended*: it is over unless a version joins or a person decides so.\n\n",
            table(("state", "meaning", "ended", "what may follow"), _campaigns()),
            "\nA pass over all models ends in `complete` where all are complete, in `partial` "
            "where all are settled or the\ndeadline is over, and else leaves it `running`.\n",
            "\n## Gaps\n\nWhat reports and attestations list as not done or not shown.\n\n",
            table(("gap", "meaning"), ((f"`{k}`", one_line(v)) for k, v in DESCRIPTIONS.items())),
            "\n## Remedies\n\nWhat was done so that a model forgets.\n\n",
            table(("remedy", "meaning"), ((f"`{k}`", v) for k, v in REMEDIES.items())),
            "\n## Events of the audit log\n\n",
            table(("events", "about"), _events()),
            "\n## Exit codes\n\nOf every command; an error is one line on standard error.\n\n",
            table(("code", "meaning", "errors"), _codes()),
        ]
    )


def _tasks() -> Iterator[tuple[str, ...]]:
    said = meanings_of(TaskState)
    for state in TaskState:
        yield f"`{state}`", said[state], _yes(state.settled), _yes(state.complete)


def _campaigns() -> Iterator[tuple[str, ...]]:
    said = meanings_of(CampaignState)
    for state in CampaignState:
        next_ones = (
            f"{event} → `{target}`"
            for event, (allowed, target) in TRANSITIONS.items()
            if state in allowed
        )
        yield f"`{state}`", said[state], _yes(state.ended), ", ".join(next_ones)


def _events() -> Iterator[tuple[str, str]]:
    of_models = {*OF_TASK.values()}
    parts: dict[str, list[AuditKind]] = {}
    for kind in AuditKind:
        if kind in DECISIONS:
            about = "a whole request"
        elif kind in of_models:
            about = "the state of one model's work"
        else:
            about = "a model, an owner, the log or a key"
        parts.setdefault(about, []).append(kind)
    for about, kinds in parts.items():
        yield ", ".join(f"`{kind}`" for kind in kinds), about


def _codes() -> Iterator[tuple[str, str, str]]:
    by_code: dict[int, list[type[errors.DisinheritError]]] = {}
    for _, one in inspect.getmembers(errors, inspect.isclass):
        if issubclass(one, errors.DisinheritError):
            by_code.setdefault(one.exit_code, []).append(one)
    for code in sorted({*by_code, *OUTCOMES}):
        found = by_code.get(code, [])
        declared = (one for one in found if "exit_code" in vars(one))
        said = OUTCOMES.get(code) or "; ".join(map(_first_line, declared))
        yield f"{code}", said, ", ".join(f"`{one.__name__}`" for one in found)


def _first_line(error: type[errors.DisinheritError]) -> str:
    return (inspect.getdoc(error) or "").partition("\n")[0].rstrip(".")


def _yes(holds: bool) -> str:
    return "yes" if holds else ""


if __name__ == "__main__":
    PAGE.write_text(page())
