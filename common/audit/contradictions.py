"""Contradictions between an attestation and the audit log.

A verifier compares the statement with every logged fact, recomputes all derived fields, and lists
the fields that cannot be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from securesystemslib.dsse import Envelope

from disinherit.common.audit.attestation import (
    LIMITS,
    NOTICE,
    Statement,
    coverage_of,
    gaps_of,
    read_statement,
    request_of,
    subjects_of,
)
from disinherit.common.audit.canonical import Json, names_digest
from disinherit.common.audit.chain import AuditEntry, Finding, Problem
from disinherit.common.audit.dsse import TrustedKeys
from disinherit.common.audit.story import ModelStory, Story, read_story
from disinherit.common.errors import AuditError

Compared = Iterator[tuple[AuditEntry, str, object, object]]
"""Log entry, name of the fact, value in the attestation, value in the log."""


def find_fault(
    envelope: Envelope, keys: TrustedKeys, entries: Sequence[AuditEntry]
) -> Problem | None:
    """Return the first fault of an attestation; `None` if it is signed and agrees with the log.

    Args:
        envelope: the attestation.
        keys: trusted keys; one of them must have signed the envelope.
        entries: the entries about its request, from a sound log.

    Raises:
        AuditError: if the envelope holds no attestation, or a malformed one.
    """
    statement = read_statement(envelope)
    fault = keys.find_fault(envelope)
    if fault is None:
        return find_contradiction(statement, entries)
    finding = Finding.FORGED if envelope.signatures else Finding.UNSIGNED
    end = entries[-1].sequence if entries else 0
    return Problem(end, finding, f"Of the attestation of {request_of(statement)!r}: {fault}")


def find_contradiction(statement: Statement, entries: Sequence[AuditEntry]) -> Problem | None:
    """Return the first difference between a statement and the audit log; `None` if they agree.

    The log may continue after the attested head.

    Args:
        statement: the statement.
        entries: the entries about its request, from a sound log.

    Raises:
        AuditError: if the statement is malformed.
    """
    try:
        return _find_contradiction(statement, entries)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AuditError(f"Expected a complete attestation, but: {error!r}.") from None


def not_compared(statement: Statement, entries: Sequence[AuditEntry]) -> list[str]:
    """Return the fields of a statement that the log cannot confirm or contradict.

    Args:
        statement: a statement that the log does not contradict.
        entries: the entries about its request, from a sound log.
    """
    story = read_story(_attested(statement, entries) or entries)
    open_ = ["software"]
    if "forgets" not in story.received.event.parameters:
        open_.append("request.forgets")
    if _graph(story) is None:
        open_.append("graph")
    answers = [m.answer.event.parameters for m in story.models.values() if m.answer is not None]
    if any("selected" not in details for details in answers):
        open_ += ["models.selected", "models.out_of_scope"]
    if any(model["late"] for model in statement["predicate"]["models"]):
        open_.append("versions that joined late")
    return open_


def _attested(statement: Statement, entries: Sequence[AuditEntry]) -> list[AuditEntry] | None:
    """Return the entries up to the attested head; `None` if the log does not contain it."""
    head = statement["predicate"]["log"]["head"]
    for count, entry in enumerate(entries, start=1):
        if entry.hash == head:
            return list(entries[:count])
    return None


def _find_contradiction(statement: Statement, entries: Sequence[AuditEntry]) -> Problem | None:
    predicate = statement["predicate"]
    attested = _attested(statement, entries)
    if attested is None:
        end = entries[-1].sequence if entries else 0
        return Problem(
            end,
            Finding.TRUNCATED,
            f"Expected the log to lead to {predicate['log']['head']}, which the attestation names, "
            f"but it ends with entry {end}.",
        )
    story, last = read_story(attested), attested[-1]
    for compared in (
        _compare_request(statement, attested, story),
        _compare_models(predicate["models"], story, last),
        _compare_derived(statement, last),
    ):
        for entry, what, claimed, logged in compared:
            if claimed != logged:
                return _difference(entry, what, claimed, logged)
    return None


def _compare_request(
    statement: Statement, attested: Sequence[AuditEntry], story: Story
) -> Compared:
    """Compare the fields of the request and of the campaign."""
    predicate, last = statement["predicate"], attested[-1]
    request, asked = predicate["request"], story.received.event.parameters
    yield last, "entries about the request", predicate["log"]["entries"], len(attested)
    yield story.received, "the request", request["id"], story.received.event.request_id
    yield story.received, "the request's digest", request["sha256"], asked.get("request_sha256")
    for name in ("roots", "method", "forgets"):
        if name in asked or name != "forgets":
            yield story.received, f"the request's {name}", request[name], asked.get(name)
    fishers = predicate["fishers"]
    for root, entry in story.fishers.items():
        yield entry, "Fisher digests", fishers.get(root), list(entry.event.fishers)
    yield last, "roots that answered", sorted(fishers), sorted(story.fishers)
    if predicate["state"] not in story.states:
        yield story.decided, "the state", predicate["state"], sorted(story.states)
    yield last, "the times", predicate["times_us"], dict(story.times_us)
    graph = _graph(story)
    if graph is not None and story.ended is not None:
        yield story.ended, "the graph", predicate["graph"], graph


def _graph(story: Story) -> Json:
    return None if story.ended is None else story.ended.event.parameters.get("graph")


def _compare_models(
    models: Sequence[Mapping[str, Any]], story: Story, last: AuditEntry
) -> Compared:
    """Compare the fields of every version."""
    listed = {model["id"]: model for model in models}
    yield last, "the number of versions", len(models), len(listed)
    for id, known in story.models.items():
        if id not in listed:
            yield known.last, f"the state of {id}", "nothing", sorted(known.states)
            continue
        yield from _compare_model(listed[id], known)
    for id, model in listed.items():
        if id not in story.models:
            yield last, f"{id}, which joined late", dict(model), _late_fields(model)


def _compare_model(model: Mapping[str, Any], known: ModelStory) -> Compared:
    last, made, answer = known.last, known.made, known.answer
    id = model["id"]
    if model["state"] not in known.states:
        yield last, f"the state of {id}", model["state"], sorted(known.states)
    yield last, f"the late joining of {id}", model["late"], False
    yield last, f"the owner of {id}", model["owner"], known.owner
    if known.digest_before is not None:
        yield last, f"the digest before of {id}", model["digest_before"], known.digest_before
    event = None if made is None else made.event
    successor = None if event is None else event.parameters["successor"]
    yield made or last, f"the successor of {id}", model["successor"], successor
    after = None if event is None else event.digest_after
    yield made or last, f"the digest after of {id}", model["digest_after"], after
    fishers = [] if event is None else list(event.fishers)
    yield made or last, f"the Fisher digests of {id}", model["fishers"], fishers
    parameters = None if known.parameters is None else dict(known.parameters)
    yield answer or last, f"the parameters of {id}", model["parameters"], parameters
    if answer is None or parameters is None:
        yield last, f"the selection in {id}", model["selected"], None
        yield last, f"the parameters out of scope in {id}", model["out_of_scope"], None
    elif "selected" in answer.event.parameters:
        logged = answer.event.parameters
        yield answer, f"the selection in {id}", model["selected"], logged["selected"]
        names, scope = model["out_of_scope"], logged.get("out_of_scope_sha256", [])
        yield answer, f"the parameters out of scope in {id}", names and names_digest(names), scope
    notified, destroyed = known.notified, known.destroyed
    time = None if notified is None else notified.event.time_us
    yield notified or last, f"the notification of the owner of {id}", model["notified_us"], time
    time = None if destroyed is None else destroyed.event.time_us
    yield destroyed or last, f"the destruction of {id}", model["destroyed_us"], time
    held = None if destroyed is None else destroyed.event.parameters.get("held_by")
    yield destroyed or last, f"the holder of the weights of {id}", model["held_by"], held


def _late_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the only possible fields of a version that the log does not mention yet."""
    return {
        **dict.fromkeys(model),
        "id": model["id"],
        "owner": model["owner"],
        "state": model["state"] if model["state"] in _WITHOUT_TASK else "pending",
        "digest_before": model["digest_before"],
        "fishers": [],
        "late": True,
    }


_WITHOUT_TASK = ("pending", "failed", "exempt", "not_reached")


def _compare_derived(statement: Statement, last: AuditEntry) -> Compared:
    """Compare the fields that follow from others, and the fixed texts."""
    predicate = statement["predicate"]
    models = predicate["models"]
    yield last, "the subjects", list(statement["subject"]), subjects_of(models)
    yield last, "the coverage", predicate["coverage"], coverage_of(models)
    gaps = gaps_of(predicate["request"]["method"], models)
    yield last, "the gaps", list(predicate["gaps"]), gaps
    yield last, "the notice", predicate["notice"], NOTICE
    yield last, "the limits", list(predicate["limits"]), list(LIMITS)
    for what, found, known in (
        ("a statement", statement, _STATEMENT),
        ("an attestation", predicate, _PREDICATE),
        ("a request", predicate["request"], _REQUEST),
        ("the log", predicate["log"], _LOG),
        *(("a version", model, _MODEL) for model in models),
    ):
        yield last, f"further fields of {what}", sorted(set(found) - known), []


_STATEMENT = {"_type", "subject", "predicateType", "predicate"}

_PREDICATE = {
    *("notice", "limits", "software", "request", "state", "times_us", "graph", "fishers"),
    *("models", "coverage", "gaps", "log"),
}

_LOG = {"entries", "head"}

_REQUEST = {"id", "sha256", "roots", "forgets", "method"}

_MODEL = {
    *("id", "owner", "state", "late", "digest_before", "successor", "digest_after", "parameters"),
    *("fishers", "selected", "out_of_scope", "notified_us", "destroyed_us", "held_by"),
}


def _difference(entry: AuditEntry, what: str, attested: object, logged: object) -> Problem:
    return Problem(
        entry.sequence,
        Finding.CONTRADICTED,
        f"Expected {what} as in entry {entry.sequence}, {logged!r:.300}, but the attestation has "
        f"{attested!r:.300}.",
    )
