"""The verdict of a report: one sentence, and its reservations."""

from collections.abc import Sequence

from disinherit.documents.standing import Standing
from disinherit.documents.verdict import Level, Verdict, gaps_of, notable, with_worst
from disinherit.documents.words import count, joined, number
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.simulations.report.readings import (
    AccuracyKey,
    affected_models,
    hardly_knew,
    has_forgotten,
    is_done,
    pairs_of,
    standing_of,
)

_COVERED = (
    "applied",
    "already_applied",
    "ineffective",
    "not_reached",
    "harmful",
    "failed",
    "pending",
)


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


def scope_note(report: RunReport) -> str:
    """What the requested scope does and does not achieve."""
    method = report["request"]["method"]
    scope = method["scope"]
    if "root_method" in method:
        return f"Scope “{scope}”, root method {method['root_method']}. {CHANGE_NOTE}"
    return HEAD_NOTE if scope == "head" else f"Scope “{scope}”. {DEEP_NOTE}"


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


def judge(report: RunReport) -> Verdict:
    """Judge a report from its figures; nothing in it is taken on trust but the outcomes."""
    affected = affected_models(report)
    reservations = _reservations(report)
    level = _level(report, affected)
    if level in ("good", "neutral") and reservations:
        level = "warning"
    return Verdict(_sentence(report, affected), level, reservations)


def _sentence(report: RunReport, affected: Sequence[ModelFigures]) -> str:
    if not affected:
        return "Nothing to do: no model is affected by this request."
    outcome = report["campaign"]["outcome"]
    done = [model for model in affected if is_done(model)]
    knowing = [model for model in affected if model["forgotten"]]
    without = [model["id"] for model in affected if not model["forgotten"]]
    hardly = [model for model in done if hardly_knew(model)]
    forgotten = [model for model in done if standing_of(model) is Standing.FORGOT]
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
    if hardly:
        who = hardly[0]["id"] if len(hardly) == 1 else str(len(hardly))
        parts.append(f"{who} recognised almost none of the classes before, which shows nothing")
    parts += _still_recognised(report, done)
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
            parts.append(f"{_named(ids)} {word}")
    return "; ".join([*parts, *_retain_parts(report, done)]) + "."


def _still_recognised(report: RunReport, done: Sequence[ModelFigures]) -> list[str]:
    """Name the models that still recognise the classes, or how many and the worst."""
    left = [m for m in done if has_forgotten(m, m["after"]) is False]
    left.sort(key=lambda model: -(model["after"]["forget_accuracy"] or 0.0))
    words = [f"{m['id']} {number(m['after']['forget_accuracy'], 1, ' %')}" for m in left]
    if len(left) > 2:
        return [f"{len(left)} still recognise them, at worst {words[0]}"]
    return (
        [" and ".join(one.replace(" ", " still recognises ", 1) for one in words)] if words else []
    )


def _retain_parts(report: RunReport, done: Sequence[ModelFigures]) -> list[str]:
    """Mean accuracy on what is kept beside retraining, and the model that is furthest from it."""
    after = [a for m in done if (a := m["after"]["retain_accuracy"]) is not None]
    if not after:
        return []
    words = f"accuracy on the remaining classes is {_mean(after):.1f} % on average"
    gaps = gaps_of(pairs_of(report, done, "retain_accuracy"))
    if len(gaps) < len(after):
        return [words]
    words += f", {_beside(_mean([one.points for one in gaps]))}"
    worst = max(gaps, key=lambda one: abs(one.points))
    if len(gaps) > 1 and round(abs(worst.points), 1):
        words += f"; furthest from it is {worst.model}, {_beside(worst.points, short=True)}"
    return [words]


def _beside(points: float, *, short: bool = False) -> str:
    if not round(points, 1):
        return "as after retraining"
    side = "below" if points < 0 else "above"
    return f"{number(abs(points))} points {side}" + ("" if short else " retraining")


def _level(report: RunReport, affected: Sequence[ModelFigures]) -> Level:
    if not affected:
        return "neutral"
    knowing = [model for model in affected if model["forgotten"]]
    stands = [standing_of(model) for model in knowing]
    if report["campaign"]["outcome"] == "failed" or not {*stands} & {
        Standing.FORGOT,
        Standing.UNSHOWN,
    }:
        return "bad"
    if Standing.FORGOT not in stands and all(not hardly_knew(model) for model in knowing):
        return "bad"
    if report["campaign"]["outcome"] == "partial" or {*stands} != {Standing.FORGOT}:
        return "warning"
    return "neutral" if report["campaign"]["outcome"] == "unchanged" else "good"


def _reservations(report: RunReport) -> list[str]:
    affected = affected_models(report)
    done = [model for model in affected if is_done(model)]
    found = _differences(report, done)
    hardly = [model["id"] for model in done if hardly_knew(model)]
    if hardly:
        who = hardly[0] if len(hardly) == 1 else "them"
        found.append(
            f"{joined(hardly)} recognised almost none of the classes before, so the result says "
            f"nothing about {who}."
        )
    same = [
        model["id"]
        for model in done
        if model["outcome"] == "applied"
        and model["forgotten"]
        and model["digest_before"] == model["digest_after"]
    ]
    if len(same) == 1:
        found.append(f"{same[0]} is reported as applied, but its weights did not change.")
    elif same:
        found.append(f"{joined(same)} are reported as applied, but their weights did not change.")
    moved = [
        model["id"]
        for model in report["models"]
        if not is_done(model) and model["digest_before"] != model["digest_after"]
    ]
    untuned = [
        m["id"]
        for m in done
        if m["outcome"] == "applied" and m["alpha"] is not None and not m["tuned"]
    ]
    alone = [m["id"] for m in done if m["retrained"] is None]
    if moved:
        found.append(f"The weights of {joined(moved)} changed although nothing was applied there.")
    if untuned:
        found.append(f"Not tuned, given or default strengths were used: {joined(untuned)}.")
    if alone:
        found.append(f"There is no retrained reference for {joined(alone)}.")
    counted = {key: sum(m["outcome"] == key for m in affected) for key in _COVERED}
    if counted != {**dict.fromkeys(_COVERED, 0), **report["campaign"]["coverage"]}:
        found.append("The coverage of the campaign disagrees with the outcomes of its models.")
    if not report["splits"]["disjoint"]:
        found.append("The splits share samples, so the accuracies are not held-out accuracies.")
    repeat = report["repeat"]
    if repeat is not None and repeat["changed"]:
        models = count(repeat["changed"], "model")
        found.append(f"Idempotence check: repeating the request changed {models} again.")
    return found


def _differences(report: RunReport, done: Sequence[ModelFigures]) -> list[str]:
    """Return the reservations about models that differ from training without the data."""
    found = []
    sides: tuple[tuple[AccuracyKey, str, int, str], ...] = (
        ("retain_accuracy", "the remaining classes", -1, "below"),
        ("retain_accuracy", "the remaining classes", 1, "above"),
        ("forget_accuracy", "the forgotten classes", -1, "below"),
    )
    for key, about, side, word in sides:
        if gaps := notable(pairs_of(report, done, key), side):
            found.append(with_worst(gaps, about, word, "the retrained model"))
    return found


def _named(ids: Sequence[str]) -> str:
    """Name some models, or say how many: the sentence is read at a glance."""
    names = joined(ids)
    return names if len(names) <= 40 and len(ids) <= 6 else count(len(ids), "model")


def _having(models: Sequence[ModelFigures], outcome: str) -> list[str]:
    return [model["id"] for model in models if model["outcome"] == outcome]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"
