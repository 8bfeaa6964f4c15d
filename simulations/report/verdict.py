"""The verdict of a report: one sentence, and its reservations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from disinherit.documents.words import number
from disinherit.simulations.report.document import Evaluation, ModelFigures, RunReport

AccuracyKey = Literal["forget_accuracy", "retain_accuracy"]

TOLERANCE = 1.0
"""Percentage points above the retrained reference (or 0 %) within which a class is forgotten."""

RETAIN_LOSS = 3.0
"""Percentage points of retain accuracy below the reference that are worth a reservation."""

_COVERED = (
    "applied",
    "already_applied",
    "ineffective",
    "not_reached",
    "harmful",
    "failed",
    "pending",
)

UNFINISHED = ("ineffective", "not_reached", "harmful", "failed", "pending")
"""Outcomes of models that have not forgotten."""

HEAD_NOTE = (
    "Scope “head” means suppression: only the last linear layer was changed. The model no longer "
    "names the forgotten classes, but its features still separate them, so whoever holds the "
    "weights can train a new head that recognises them again."
)
DEEP_NOTE = (
    "What is in scope was dampened, in deeper layers the features too. This is an approximation: "
    "it does not prove that the features no longer separate the forgotten classes."
)
CHANGE_NOTE = (
    "The changes of the roots were added to their descendants: near to training again only as far "
    "as the figures show it."
)
REFERENCE_NOTE = (
    "No figure means anything alone: read each one against the model that was retrained without "
    "the data. Even a retrained model's features can separate classes it has never seen."
)
NULL_NOTE = "n/a (null in report.json) means “could not be computed”, never zero."


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """The sentence, its colour, and the reservations to show beside it."""

    sentence: str
    level: Literal["good", "warning", "bad", "neutral"]
    reservations: list[str]


def gap(value: float | None, reference: float | None) -> float | None:
    """Percentage points by which `value` is above `reference`, `None` if either is missing."""
    return None if value is None or reference is None else value - reference


def reference_of(model: ModelFigures, key: AccuracyKey) -> float | None:
    """Accuracy of the retrained model, in percent, if there is one."""
    retrained = model["retrained"]
    return None if retrained is None else retrained[key]


def is_done(model: ModelFigures) -> bool:
    """Whether the request was applied to the model, now or earlier."""
    return model["outcome"] in ("applied", "already_applied")


def has_forgotten(model: ModelFigures, evaluation: Evaluation) -> bool | None:
    """Whether the forget accuracy is within `TOLERANCE` of retraining; `None` if not measured."""
    accuracy = evaluation["forget_accuracy"]
    if accuracy is None:
        return None
    return accuracy <= (reference_of(model, "forget_accuracy") or 0.0) + TOLERANCE


def scope_note(report: RunReport) -> str:
    """What the requested scope does and does not achieve."""
    method = report["request"]["method"]
    scope = method["scope"]
    if "root_method" in method:
        return f"Scope “{scope}”, root method {method['root_method']}. {CHANGE_NOTE}"
    return HEAD_NOTE if scope == "head" else f"Scope “{scope}”. {DEEP_NOTE}"


def affected_models(report: RunReport) -> list[ModelFigures]:
    """The models the request concerns, in the order of the report."""
    return [model for model in report["models"] if model["role"] != "untouched"]


def describe_speedup(report: RunReport) -> str:
    """How unlearning compares with retraining in time, or `""` if there is nothing to compare.

    A campaign that changed nothing has no speed.  The text names the part of the models that were
    reached, if not all were.
    """
    total, retrain = report["timing"]["total"], report["timing"]["retrain_all"]
    affected = affected_models(report)
    done = [model for model in affected if is_done(model)]
    if not total or not retrain or not any(model["outcome"] == "applied" for model in done):
        return ""
    ratio = retrain / total
    words = f"{ratio:.{1 if ratio < 10 else 0}f} times faster than replaying the training"
    if ratio < 1:
        words = f"{1 / ratio:.1f} times slower than replaying the training"
    if len(done) < len(affected):
        words += f", but only {len(done)} of {len(affected)} models were reached"
    return words


def judge(report: RunReport) -> RunVerdict:
    """Judge a report from its figures; nothing in it is taken on trust but the outcomes."""
    affected = affected_models(report)
    return RunVerdict(_sentence(report, affected), _level(report, affected), _reservations(report))


def _sentence(report: RunReport, affected: Sequence[ModelFigures]) -> str:
    if not affected:
        return "Nothing to do: no model is affected by this request."
    outcome = report["campaign"]["outcome"]
    done = [model for model in affected if is_done(model)]
    knowing = [model for model in affected if model["forgotten"]]
    without = [model["id"] for model in affected if not model["forgotten"]]
    forgotten = [model for model in done if has_forgotten(model, model["after"])]
    total = f"{len(knowing)} affected {_plural('model', len(knowing))}"
    if without:
        total += f" that {'knows' if len(knowing) == 1 else 'know'} the classes"
    if outcome == "failed" and not done:
        head = f"Nothing was forgotten: the request reached none of {total}"
    elif outcome == "unchanged":
        head = f"Nothing was changed by this campaign: forgotten in {len(forgotten)} of {total}"
    else:
        head = f"Forgotten in {len(forgotten)} of {total}"
        if len(forgotten) == len(knowing):
            head = "Forgotten in " + (f"all {total}" if len(knowing) > 1 else f"the {total}")
    parts = [head]
    left = [
        f"{model['id']} still recognises {number(model['after']['forget_accuracy'], 1, ' %')}"
        for model in done
        if has_forgotten(model, model["after"]) is False
    ]
    if left:
        parts.append(_join(left))
    unmeasured = [m["id"] for m in done if has_forgotten(m, m["after"]) is None]
    for ids, word in (
        ([model for model in unmeasured if model not in without], "could not be measured"),
        (without, "derived from them, with none of the classes among the labels"),
        (_having(affected, "ineffective"), "have not forgotten by their owners' data"),
        (_having(affected, "not_reached"), "not reached: no class there corresponds"),
        (_having(affected, "harmful"), "left as they were, since too much would be lost"),
        (_having(affected, "failed"), "failed"),
        ([m["id"] for m in affected if m["outcome"] in ("pending", "untouched")], "pending"),
    ):
        if ids:
            parts.append(f"{_join(ids)} {word}")
    return "; ".join([*parts, *_retain_parts(done)]) + "."


def _retain_parts(done: Sequence[ModelFigures]) -> list[str]:
    """Mean retain accuracy, and its gap to retraining over models that have both."""
    after = [a for m in done if (a := m["after"]["retain_accuracy"]) is not None]
    if not after:
        return []
    gaps = [
        g
        for m in done
        if (g := gap(m["after"]["retain_accuracy"], reference_of(m, "retain_accuracy"))) is not None
    ]
    words = f"what is kept is recognised at {_mean(after):.1f} % on average"
    if len(gaps) == len(after):
        words += f" ({number(abs(_mean(gaps)))} points {'below' if _mean(gaps) < 0 else 'above'} "
        words += "retraining)"
    return [words]


def _level(
    report: RunReport, affected: Sequence[ModelFigures]
) -> Literal["good", "warning", "bad", "neutral"]:
    if not affected:
        return "neutral"
    knowing = [model for model in affected if model["forgotten"]]
    forgotten = [is_done(m) and has_forgotten(m, m["after"]) is True for m in knowing]
    if report["campaign"]["outcome"] == "failed" or not any(forgotten):
        return "bad"
    if report["campaign"]["outcome"] == "partial" or not all(forgotten):
        return "warning"
    return "neutral" if report["campaign"]["outcome"] == "unchanged" else "good"


def _reservations(report: RunReport) -> list[str]:
    affected = affected_models(report)
    done = [model for model in affected if is_done(model)]
    found: list[str] = []
    for model in done:
        name = model["id"]
        loss = gap(model["after"]["retain_accuracy"], reference_of(model, "retain_accuracy"))
        if loss is not None and loss < -RETAIN_LOSS:
            found.append(f"{name} keeps {-loss:.1f} points less of the rest than retraining would.")
        if model["outcome"] == "applied":
            if has_forgotten(model, model["before"]):
                found.append(f"{name} hardly recognised the classes before unlearning either.")
            if model["forgotten"] and model["digest_before"] == model["digest_after"]:
                found.append(f"{name} is reported as applied, but its weights did not change.")
    moved = [
        model["id"]
        for model in report["models"]
        if not is_done(model) and model["digest_before"] != model["digest_after"]
    ]
    untuned = [m["id"] for m in done if m["outcome"] == "applied" and not m["tuned"]]
    alone = [m["id"] for m in done if m["retrained"] is None]
    if moved:
        found.append(f"The weights of {_join(moved)} changed although nothing was applied there.")
    if untuned:
        found.append(f"Not tuned, given or default strengths were used: {_join(untuned)}.")
    if alone:
        found.append(f"There is no retrained reference for {_join(alone)}.")
    counted = {key: sum(m["outcome"] == key for m in affected) for key in _COVERED}
    if counted != {**dict.fromkeys(_COVERED, 0), **report["campaign"]["coverage"]}:
        found.append("The coverage of the campaign disagrees with the outcomes of its models.")
    if not report["splits"]["disjoint"]:
        found.append("The splits share samples, so the accuracies are not held-out accuracies.")
    repeat = report["repeat"]
    if repeat is not None and repeat["changed"]:
        found.append(f"Sent a second time, the request changed {repeat['changed']} models again.")
    return found


def _having(models: Sequence[ModelFigures], outcome: str) -> list[str]:
    return [model["id"] for model in models if model["outcome"] == outcome]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"


def _join(names: Sequence[str]) -> str:
    """Join names as prose, cut after six: a fleet may have hundreds."""
    if len(names) > 6:
        return ", ".join(names[:5]) + f" and {len(names) - 5} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
