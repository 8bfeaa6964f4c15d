"""Result of forgetting in one process: what became of each model, and what is left open."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from disinherit.common.audit.gaps import DESCRIPTIONS, GapKind, find_gaps
from disinherit.common.wire.recognition import TRAINING
from disinherit.common.wire.remedies import remedy_word
from disinherit.common.wire.requests import Request
from disinherit.local.members import Member
from disinherit.server.states import Task, TaskState
from disinherit.server.store.audit_events import method_details, result_details
from disinherit.v1 import unlearning_pb2 as pb

HELD_OUT = ("evaluation", "tuning")
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure before and after.

    Attributes:
        measure: `accuracy`, or `auc`: how often a sample to forget has a smaller loss than an
            unseen one of its class; 0.5 is chance.
        before: the figure before.
        after: the figure after.
        samples: how many it is of.
        source: the samples: `evaluation`, `tuning`, or `training`.
        named: share of samples to forget that were named by their own labels, before and after;
            `None` for classes.
    """

    measure: str
    before: float
    after: float
    samples: int
    source: str = "evaluation"
    named: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return both figures."""
        if self.measure == "auc":
            shown = f"AUC {self.before:.3f} -> {self.after:.3f}"
        else:
            shown = f"{self.before:.1%} -> {self.after:.1%}"
        if self.named is not None:
            shown += f", named {self.named[0]:.1%} -> {self.named[1]:.1%}"
        return shown if self.source == "evaluation" else f"{shown} ({self.source})"


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """What became of one affected model.

    Attributes:
        model: its name.
        state: `verified` if it has the new weights and, as far as its data tells, forgot;
            `ineffective`, `not_reached`,
            `harmful` or `failed` if it is as it was; `reason` says why.
        reason: why it is anything but verified.
        scope: parameters that might change.
        selected: values that were dampened or changed.
        total: values in scope.
        forget: on what is to be forgotten; `None` where no data tells.
        retain: accuracy on everything else; `None` likewise.
        trained: whether it was measured on training samples, for want of held-out ones.
        remedy: what was done: `replayed`, trained again exactly without it; `approximated`, by the
            changes of roots or by training on; `suppressed`, by dampening; `untouched`, or
            `refused`.
        root_method: how it was unlearned, if it is a root of samples.
        changes: root -> how much of its change was added; 1 for all of it.
    """

    model: str
    state: str
    reason: str
    scope: str
    selected: int = 0
    total: int = 0
    forget: Figure | None = None
    retain: Figure | None = None
    trained: bool = False
    remedy: str = ""
    root_method: str = ""
    changes: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class ForgetResult(Mapping[str, ModelOutcome]):
    """What a request came to: name of each affected model -> its outcome; its text is a table.

    Attributes:
        what: what was to be forgotten, and where it was learned.
        outcomes: of every affected model, parents first.
        reservations: what is left open, for people to read.
        models: name -> module of every affected model: the very ones that were added, or copies.
    """

    what: str
    outcomes: tuple[ModelOutcome, ...]
    reservations: tuple[str, ...]
    models: Mapping[str, nn.Module]

    @property
    def complete(self) -> bool:
        """Whether every affected model is verified."""
        return all(outcome.state == "verified" for outcome in self.outcomes)

    def __getitem__(self, model: str) -> ModelOutcome:
        """Return what became of a model.

        Raises:
            KeyError: if it was not affected.
        """
        for outcome in self.outcomes:
            if outcome.model == model:
                return outcome
        raise KeyError(model)

    def __iter__(self) -> Iterator[str]:
        return (outcome.model for outcome in self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __repr__(self) -> str:
        return f"ForgetResult({self._head})"

    def __str__(self) -> str:
        """Return a table of all affected models, the reasons, and the reservations."""
        figures = [one.forget for one in self.outcomes if one.state == "verified"]
        measured = sum(one is not None and one.source in HELD_OUT for one in figures)
        lines = [f"{self._head}, {measured} on held-out data", ""]
        by_changes = any(one.root_method or one.changes for one in self.outcomes)
        columns = ("remedy", "changed", "by") if by_changes else ("scope", "selected")
        rows: list[tuple[str, ...]] = [("model", "state", *columns, "forget", "retain")]
        rows += [_row(outcome, by_changes) for outcome in self.outcomes]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
        reasons = [f"{one.model}: {one.reason}" for one in self.outcomes if one.reason]
        notes = [*reasons, *self.reservations]
        return "\n".join([*lines, "", *(f"- {note}" for note in notes)] if notes else lines)

    @property
    def _head(self) -> str:
        done = sum(outcome.state == "verified" for outcome in self.outcomes)
        return f"forget {self.what}: {done} of {len(self.outcomes)} affected models verified"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it but the modules, as JSON values."""
        return {
            "what": self.what,
            "complete": self.complete,
            "models": [asdict(outcome) for outcome in self.outcomes],
            "reservations": list(self.reservations),
        }


def _row(outcome: ModelOutcome, by_changes: bool) -> tuple[str, ...]:
    selected = f"{outcome.selected:,} of {outcome.total:,}" if outcome.total else "-"
    how: tuple[str, ...] = (outcome.scope, selected)
    if by_changes:
        parts = [outcome.root_method] if outcome.root_method else []
        parts += [f"{share:.2f} of the change of {root}" for root, share in outcome.changes.items()]
        changed = selected if outcome.remedy not in ("untouched", "refused") else "-"
        how = (outcome.remedy or "-", changed, ", ".join(parts) or "-")
    figures = (
        NOT_MEASURED if one is None else str(one) for one in (outcome.forget, outcome.retain)
    )
    return (outcome.model, outcome.state, *how, *figures)


_PLAIN = {
    GapKind.NOT_TUNED: "Default strengths decided how much was dampened; for classes, they can be "
    "chosen on tuning data (tune=).",
    GapKind.APPROXIMATED: "These models were not trained again without it: a root was trained on, "
    "or the changes of roots were added. How near that comes is known only where data tells.",
    GapKind.NOT_MEASURED: "No data tells whether these models still recognise what is to be "
    "forgotten: that their weights were changed is all that is known.",
    GapKind.BELIEVED: "That these models were trained again without it (retrain=) is believed: no "
    "figure denies it, and none shows it.",
    GapKind.CLEARED_UNRECORDED: "No figure shows it there: earlier requests had cleared it.",
    GapKind.FEW_MEASURED: "It was measured on so few samples that chance could hide what these "
    "models still recognise.",
}
"""Kinds of limitations in the words of one process, where there are no owners."""

_OWN_WORDS = (
    ("roll it back, and ", "it was put back; "),
    ("give its owner tuning data", "give it tuning data (tune=)"),
    ("give its owner evaluation data", "give it held-out data (evaluate=)"),
    ("no data of its owner tells", "no data of it tells"),
    ("Make it a root, or retrain it", "Name it as a root (root=), too, or retrain it"),
    # Without root=, all models that were trained on a class are its roots.
    ("or make the model a root, or retrain it", "or retrain it"),
    ("The owner's log has", "The log has"),
    (
        " If that stays so, let its owner train such roots again (`retrain`), or ask with "
        "--mechanism fisher.",
        ' Add it with a way to train it again (retrain=), or ask with Method(mechanism="fisher").',
    ),
    ("ask with --scope all", 'ask with scope="all"'),
)
"""What reasons say of owners -> what it means where there are none."""

_NAMED = 5
"""Most models that a line names."""

_SHOWN_BY_STATE = {
    GapKind.FAILED,
    GapKind.INEFFECTIVE,
    GapKind.NOT_REACHED,
    GapKind.HARMFUL,
    GapKind.EXEMPT,
}


def outcome_of(member: Member, name: str, task: Task, request: Request) -> ModelOutcome:
    """Return what became of a model.

    Args:
        member: the model.
        name: what it is called.
        task: the work on it as it stands in the end.
        request: the request.
    """
    outcome = ModelOutcome(name, str(task.state), _plainly(task.reason), request.method.scope)
    result = task.result
    if result is None:
        return outcome
    found = result.forget if result.HasField("forget") else None
    forget = retain = None
    if found is not None:
        named = (found.named_before, found.named_after) if found.measure == "auc" else None
        forget = Figure(
            found.measure, found.before, found.after, found.samples, found.source, named
        )
    source = member.retain_source(len({c for names in request.forget.values() for c in names}))
    if result.HasField("retain_before"):
        before, after = result.retain_before, result.retain_after
        retain = Figure("accuracy", before, after, result.retain_samples, source or TRAINING)
    done = task.state is TaskState.VERIFIED or result.remedy == pb.REMEDY_REFUSED
    added = result.deltas if task.state is TaskState.VERIFIED else ()
    changes = {one.root.partition("~")[0]: one for one in added}
    own = changes.pop(name, None)
    return replace(
        outcome,
        selected=sum(sum(one.rows) for one in result.selections),
        total=sum(one.total for one in result.selections),
        forget=forget,
        retain=retain,
        trained=any(one is not None and one.source not in HELD_OUT for one in (forget, retain)),
        remedy=remedy_word(result.remedy if done else pb.REMEDY_UNTOUCHED),
        root_method="" if own is None else own.root_method,
        changes={root: one.applied for root, one in changes.items()},
    )


def reservations(
    request: Request,
    outcomes: Sequence[ModelOutcome],
    tasks: Mapping[str, Task],
    notes: Iterable[str],
) -> Iterator[str]:
    """Yield what is left open, for people to read.

    Args:
        request: the request.
        outcomes: of the affected models.
        tasks: version -> the work on it as it stands in the end.
        notes: of the plan.
    """
    yield from notes
    words = [
        {
            "id": version.partition("~")[0],
            "late": False,
            "state": str(task.state),
            "parameters": None if task.result is None else result_details(task.result),
            "successor": None if task.successor is None else task.successor.id,
            "out_of_scope": [] if task.result is None else list(task.result.out_of_scope),
            "destroyed_us": 1,
            "held_by": "",
            "notified_us": 1,
        }
        for version, task in tasks.items()
    ]
    for gap in find_gaps(method_details(request.method.to_proto()), words):
        if gap.kind not in _SHOWN_BY_STATE:
            about = f"{_few(gap.models)}: " if gap.models else ""
            yield about + _PLAIN.get(gap.kind, DESCRIPTIONS[gap.kind])
    trained = [outcome.model for outcome in outcomes if outcome.trained]
    if trained:
        yield (
            f"{_few(trained)}: held-out data (evaluate=) is missing, or has not every class, so "
            "that training samples decided the state."
        )


def _few(models: Sequence[str]) -> str:
    """Return the names of some models, for a line."""
    more = len(models) - _NAMED
    return ", ".join(models[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _plainly(reason: str) -> str:
    """Return a reason in the words of one process, where there are no owners."""
    for owners, own in _OWN_WORDS:
        reason = reason.replace(owners, own)
    return reason
