"""Next steps for a person about a request, by its state."""

from collections.abc import Mapping
from typing import Any

from disinherit.cli.request.words import asked
from disinherit.cli.tables import moment

_STEPS = {
    "awaiting_approval": (
        "Waiting for an approver: disinherit request approve {id}",
        "Follow it: disinherit request watch {id}",
    ),
    "running": ("Follow it: disinherit request watch {id}",),
    "paused": ("Nothing is sent until: disinherit request resume {id}",),
    "halted": (
        "See which models made it halt: disinherit request coverage {id}",
        "Go on all the same: disinherit request resume {id}; or take it back: disinherit request "
        "rollback {id} --reason TEXT",
    ),
    "partial": (
        "See what is left: disinherit request coverage {id}",
        "Ask the owners that were given up once more: disinherit request resume {id}",
    ),
    "complete": (
        "See the result: disinherit request report {id}",
        "Attest it: disinherit request attest {id} --out FILE",
    ),
    "aborted": ("Take back what was applied: disinherit request rollback {id} --reason TEXT",),
    "rolling_back": ("Follow it: disinherit request watch {id}",),
    "rolled_back": ("See the result: disinherit request report {id}",),
}


_UNDER_WAY = {"pending", "sent", "applied", "rolling_back"}
"""States of models that change without anybody's help."""


def next_steps(shown: Mapping[str, Any]) -> list[str]:
    """Return what a person can do next, each as a line with its command.

    Args:
        shown: the status of a request, as JSON values.

    Example:
        >>> next_steps({"id": "q", "state": "paused", "tasks": {}})
        ['Nothing is sent until: disinherit request resume q']
    """
    steps = [step.format(id=shown["id"]) for step in _STEPS.get(shown["state"], ())]
    late = shown["tasks"].get("unapproved")
    if late:
        steps.insert(0, f"{late} that joined wait for: disinherit request approve {shown['id']}")
    return steps


def done_before(shown: Mapping[str, Any], updated_us: int) -> str:
    """Return that a request which was submitted now had ended before; `""` if it had not.

    Args:
        shown: its status, as JSON values.
        updated_us: when its state last changed.
    """
    ended = ("complete", "partial", "aborted", "rolled_back")
    if shown["state"] not in ended:
        return ""
    what = "; ".join(f"{what} at {model}" for what, model in asked(shown))
    return (
        f"{what}: this was asked before, and {shown['id']} is {shown['state']} since "
        f"{moment(updated_us)}. Nothing was submitted. Submit it again with --again."
    )


def waits_for_failed(request_id: str, state: str, tasks: Mapping[str, int]) -> str:
    """Return what to do about a request that is kept open by models that failed; `""` if it is not.

    Args:
        request_id: the request.
        state: its state.
        tasks: state -> number of models in it.

    Example:
        >>> waits_for_failed("q", "running", {"failed": 1, "pending": 2})
        ''
        >>> waits_for_failed("q", "running", {"failed": 1, "verified": 2})[:47]
        'What failed is tried again from time to time: `'
    """
    if state != "running" or not tasks.get("failed") or set(tasks) & _UNDER_WAY:
        return ""
    return (
        f"What failed is tried again from time to time: `disinherit coverage {request_id}` says "
        f"why it failed. Where that stays so, `disinherit request abort {request_id}` ends it, and "
        "so does a deadline."
    )
