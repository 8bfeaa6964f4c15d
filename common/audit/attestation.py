"""Attestations: in-toto statements about a campaign.

A statement (https://in-toto.io/Statement/v1) has the versions before and after as its subjects.
Its predicate records what was done to each.  It is signed as a DSSE envelope and attests a
*procedure*: these steps were taken and recorded.  It never attests that anything was erased.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from securesystemslib.dsse import Envelope

from disinherit.common.audit.canonical import Json, canonical
from disinherit.common.audit.gaps import DESCRIPTIONS, find_gaps
from disinherit.common.errors import AuditError
from disinherit.common.text import load_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:disinherit:attestation:unlearning:v2"
_FIRST = "urn:disinherit:attestation:unlearning:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
DIGEST = "disinheritWeightsSha256"
"""Name of a subject's digest: `weights_digest` of the tensors, not SHA-256 of a file."""

NOTICE = (
    "This attests the procedure: which steps were taken and recorded for this request. It is no "
    "proof that anything was erased, from a model or elsewhere."
)

LIMITS = (
    "Digests, parameters and counts are what owners reported. That an owner holds what it says, or "
    "nothing besides, is not shown.",
    "Copies of a version that were made outside the inheritance graph are not covered.",
    "Who has a version of before and after can compare them, and may learn from the difference "
    "what was forgotten.",
)
"""Limits of every attestation, also of a complete campaign.  Verification compares this text."""

Statement = Mapping[str, Any]


def read_statement(envelope: Envelope) -> Statement:
    """Return the statement in an envelope, without verifying its signatures.

    Raises:
        AuditError: if the payload is no attestation of this kind, or not in canonical form.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise AuditError(
            f"Expected an envelope with {PAYLOAD_TYPE}, but got one with {envelope.payload_type!r}."
        )
    try:
        values = load_json(envelope.payload.decode())
        kinds = (values["_type"], values["predicateType"])
        sound = canonical(values) == envelope.payload
    except (TypeError, KeyError, ValueError, RecursionError):
        kinds, sound = ("", ""), False
    if kinds == (STATEMENT_TYPE, _FIRST):
        raise AuditError(
            f"Expected an attestation of kind {PREDICATE_TYPE}, but got one of {_FIRST}, which was "
            "not compared with all of the log. Have a new one made: disinherit audit attest."
        )
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
        AuditError: if the statement names no request.
    """
    try:
        return str(statement["predicate"]["request"]["id"])
    except (KeyError, TypeError):
        raise AuditError("Expected an attestation of a request, but it names none.") from None


def subjects_of(models: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the subjects of a statement: the versions before and after."""
    subjects = []
    for model in models:
        subjects.append(_subject(model["id"], model["digest_before"], "before"))
        if model["successor"] is not None:
            subjects.append(_subject(model["successor"], model["digest_after"], "after"))
    return subjects


def coverage_of(models: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """Return the number of versions in each state, and whether all are settled."""
    states = [model["state"] for model in models]
    return {
        "affected": len(states),
        "by_state": {state: states.count(state) for state in sorted(set(states))},
        "complete": all(state in ("verified", "exempt") for state in states),
    }


def gaps_of(method: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the gaps of a campaign with their descriptions."""
    return [
        {"kind": gap.kind.value, "models": list(gap.models), "said": DESCRIPTIONS[gap.kind]}
        for gap in find_gaps(method, models)
    ]


def _subject(name: str, digest: str, role: str) -> Json:
    return {"name": name, "digest": {DIGEST: digest}, "annotations": {"role": role}}
