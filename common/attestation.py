"""Attestations: in-toto statements about how a request was carried out, checked against the log.

A statement (https://in-toto.io/Statement/v1) names the versions before and after as its subjects
and says in its predicate what was done to each.  It is signed as a DSSE envelope and attests a
*procedure*: that these steps were taken and recorded, never that anything was erased.

Whoever has the audit log, too, can check that both say the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from disinherit.common.audit_chain import AuditEntry, Finding, Problem, canonical
from disinherit.common.dsse import Envelope, TrustedKeys
from disinherit.common.errors import AuditError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:disinherit:attestation:unlearning:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
DIGEST = "disinheritWeightsSha256"
"""What a subject's digest is called: not SHA-256 of a file but `weights_digest` of the tensors."""

NOTICE = (
    "This attests the procedure: which steps were taken and recorded for this request. It is no "
    "proof that anything was erased, from a model or elsewhere."
)

Statement = Mapping[str, Any]


def read_statement(envelope: Envelope) -> Statement:
    """Return the statement in an envelope, whatever its signatures are worth.

    Raises:
        AuditError: if it is no attestation of this kind, or not in canonical form.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise AuditError(
            f"Expected an envelope with {PAYLOAD_TYPE}, but got one with {envelope.payload_type!r}."
        )
    try:
        values = json.loads(envelope.payload.decode())
        kinds = (values["_type"], values["predicateType"])
        sound = canonical(values) == envelope.payload
    except (TypeError, KeyError, ValueError, RecursionError):
        kinds, sound = ("", ""), False
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE) or not sound:
        raise AuditError(
            f"Expected an in-toto statement with predicate {PREDICATE_TYPE} in canonical form, but "
            "got something else."
        )
    checked: Statement = values
    return checked


def request_of(statement: Statement) -> str:
    """Return the id of the request that a statement is about.

    Raises:
        AuditError: if it says none.
    """
    try:
        return str(statement["predicate"]["request"]["id"])
    except (KeyError, TypeError):
        raise AuditError("Expected an attestation of a request, but it names none.") from None


def find_fault(
    envelope: Envelope, keys: TrustedKeys, entries: Sequence[AuditEntry]
) -> Problem | None:
    """Return what is wrong with an attestation; `None` if it is signed and the log says the same.

    Args:
        envelope: the attestation.
        keys: one of them must have signed it.
        entries: those about its request, of a log that is sound.

    Raises:
        AuditError: if it is no attestation, or malformed.
    """
    statement = read_statement(envelope)
    fault = keys.find_fault(envelope.payload_type, envelope.payload, envelope.signatures)
    if fault is None:
        return find_contradiction(statement, entries)
    finding = Finding.FORGED if envelope.signatures else Finding.UNSIGNED
    end = entries[-1].sequence if entries else 0
    return Problem(end, finding, f"Of the attestation of {request_of(statement)!r}: {fault}")


def find_contradiction(statement: Statement, entries: Iterable[AuditEntry]) -> Problem | None:
    """Return the first thing in which a statement and the audit log differ; `None` if they agree.

    The log may go on after what was attested.

    Args:
        statement: the statement.
        entries: those about its request, of a log that is sound.

    Raises:
        AuditError: if the statement is malformed.
    """
    try:
        return _find_contradiction(statement["subject"], statement["predicate"], entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise AuditError(f"Expected a complete attestation, but: {error!r}.") from None


def _find_contradiction(
    subjects: Any, predicate: Any, entries: Iterable[AuditEntry]
) -> Problem | None:
    log = predicate["log"]
    attested: list[AuditEntry] = []
    for entry in entries:
        attested.append(entry)
        if entry.hash == log["head"]:
            break
    else:
        end = attested[-1].sequence if attested else 0
        return Problem(
            end,
            Finding.TRUNCATED,
            f"Expected the log to lead to {log['head']}, which the attestation names, but it ends "
            f"with entry {end}.",
        )
    if len(attested) != log["entries"]:
        return _differs(attested[-1], "entries about the request", log["entries"], len(attested))
    first = attested[0]
    asked = first.event.parameters.get("request_sha256")
    if asked != predicate["request"]["sha256"]:
        return _differs(first, "the request's digest", predicate["request"]["sha256"], asked)
    latest = {(entry.event.kind, entry.event.model_id): entry for entry in attested}
    models = {model["id"]: model for model in predicate["models"]}
    for found in (
        *_models(models, latest),
        *_roots(predicate["fishers"], latest),
        *_subjects(subjects, models, attested[-1]),
    ):
        if found is not None:
            return found
    return None


def _models(
    models: Mapping[str, Any], latest: Mapping[tuple[str, str], AuditEntry]
) -> Iterator[Problem | None]:
    """Compare what became of every version with the last entries about it."""
    for (kind, id), entry in latest.items():
        if kind in ("applied", "rolled_back", "planned") and id not in models:
            yield _differs(entry, "what became of its version", "nothing", kind)
    for id, model in models.items():
        done = latest.get(("rolled_back", id)) if model["state"] == "rolled_back" else None
        for kind in ("applied", "verified"):
            logged = latest.get((kind, id))
            if model["successor"] is None or logged is None:
                continue
            event = logged.event
            yield _compare(logged, "digest before", model["digest_before"], event.digest_before)
            yield _compare(logged, "digest after", model["digest_after"], event.digest_after)
            if kind == "applied":
                said = {**(model["parameters"] or {}), "successor": model["successor"]}
                yield _compare(logged, "parameters", said, dict(event.parameters))
                yield _compare(logged, "Fisher digests", model["fishers"], list(event.fishers))
        needed = {"applied": "applied", "verified": "verified", "rolled_back": "rolled_back"}
        kind = needed.get(model["state"], "")
        if kind and (kind, id) not in latest:
            last = max(latest.values(), key=lambda entry: entry.sequence)
            yield _differs(last, f"an entry that {id} is {kind}", model["state"], "none")
        destroyed = latest.get(("destroyed", id))
        if (destroyed is None) != (model.get("destroyed_us") is None):
            yield _differs(
                destroyed or max(latest.values(), key=lambda entry: entry.sequence),
                f"the destruction of {id}",
                model.get("destroyed_us"),
                None if destroyed is None else destroyed.event.time_us,
            )
        if done is not None:
            yield _compare(done, "digest after", model["digest_before"], done.event.digest_after)


def _roots(
    fishers: Mapping[str, Any], latest: Mapping[tuple[str, str], AuditEntry]
) -> Iterator[Problem | None]:
    for (kind, root), entry in latest.items():
        if kind == "fisher_received":
            yield _compare(entry, "Fisher digests", fishers.get(root), list(entry.event.fishers))


def _subjects(
    subjects: Any, models: Mapping[str, Any], last: AuditEntry
) -> Iterator[Problem | None]:
    """Compare the subjects with what is said of the versions."""
    said = {one["name"]: one["digest"][DIGEST] for one in subjects}
    told = {}
    for model in models.values():
        told[model["id"]] = model["digest_before"]
        if model["successor"] is not None:
            told[model["successor"]] = model["digest_after"]
    yield _compare(last, "subjects", said, told)


def _compare(entry: AuditEntry, what: str, attested: object, logged: object) -> Problem | None:
    return None if attested == logged else _differs(entry, what, attested, logged)


def _differs(entry: AuditEntry, what: str, attested: object, logged: object) -> Problem:
    return Problem(
        entry.sequence,
        Finding.CONTRADICTED,
        f"The attestation says of {what} {attested!r:.300}, but by entry {entry.sequence} it is "
        f"{logged!r:.300}.",
    )
