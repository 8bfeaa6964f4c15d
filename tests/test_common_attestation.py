"""Attestations against the log: whatever they say differently is found, and the entry named."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from audit_cases import chain
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from disinherit.common.attestation import (
    DIGEST,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    find_contradiction,
    find_fault,
    read_statement,
    request_of,
)
from disinherit.common.audit_chain import AuditEvent, Json, canonical
from disinherit.common.dsse import Envelope, Signature, Signer, TrustedKeys
from disinherit.common.errors import AuditError

PARAMETERS: dict[str, Json] = {"alpha": "1.0", "lam": "0.5", "gauge": "0.0", "tuned": True}
ENTRIES = chain(
    [
        AuditEvent("received", 1, "operator:ci", "q", parameters={"request_sha256": "0e"}),
        AuditEvent("planned", 2, "coordinator", "q", "r", "anna"),
        AuditEvent("fisher_received", 3, "owner:anna", "q", "r", "anna", fishers=("f1",)),
        AuditEvent(
            "applied",
            4,
            "owner:anna",
            "q",
            "r",
            "anna",
            "0a",
            "0b",
            {**PARAMETERS, "successor": "r~q"},
            ("f2",),
        ),
        AuditEvent("verified", 5, "coordinator", "q", "r", "anna", "0a", "0b"),
        AuditEvent("completed", 6, "coordinator", "q"),
    ]
)
STATEMENT: Any = {
    "_type": STATEMENT_TYPE,
    "predicateType": PREDICATE_TYPE,
    "subject": [
        {"name": "r", "digest": {DIGEST: "0a"}},
        {"name": "r~q", "digest": {DIGEST: "0b"}},
    ],
    "predicate": {
        "request": {"id": "q", "sha256": "0e"},
        "fishers": {"r": ["f1"]},
        "models": [
            {
                "id": "r",
                "state": "verified",
                "digest_before": "0a",
                "successor": "r~q",
                "digest_after": "0b",
                "parameters": PARAMETERS,
                "fishers": ["f2"],
            }
        ],
        "log": {"entries": 6, "head": ENTRIES[-1].hash},
    },
}
SIGNER, OTHER = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([i] * 32))) for i in (1, 2))
KEYS = TrustedKeys.from_pem(SIGNER.public_pem)


def model(statement: Any) -> Any:
    return statement["predicate"]["models"][0]


CHANGES: dict[str, tuple[int, Callable[[Any], object]]] = {
    "request": (1, lambda s: s["predicate"]["request"].update(sha256="0f")),
    "root's Fisher": (3, lambda s: s["predicate"]["fishers"].update(r=["f0"])),
    "no root's Fisher": (3, lambda s: s["predicate"]["fishers"].clear()),
    "digest before": (4, lambda s: model(s).update(digest_before="0c")),
    "digest after": (4, lambda s: model(s).update(digest_after="0c")),
    "successor": (4, lambda s: model(s).update(successor="r~p")),
    "parameters": (4, lambda s: model(s).update(parameters={**PARAMETERS, "alpha": "2.0"})),
    "no parameters": (4, lambda s: model(s).update(parameters=None)),
    "Fisher": (4, lambda s: model(s).update(fishers=[])),
    "a state it never had": (6, lambda s: model(s).update(state="rolled_back")),
    "a version less": (2, lambda s: s["predicate"]["models"].clear()),
    "a subject less": (6, lambda s: s["subject"].pop()),
    "another subject": (6, lambda s: s["subject"][0]["digest"].update({DIGEST: "0c"})),
    "fewer entries": (6, lambda s: s["predicate"]["log"].update(entries=5)),
}


def test_a_statement_that_says_what_the_log_says_is_not_contradicted() -> None:
    assert find_contradiction(STATEMENT, ENTRIES) is None
    later = chain([entry.event for entry in ENTRIES] + [AuditEvent("reopened", 7, "c", "q")])
    assert find_contradiction(STATEMENT, later) is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_found_and_the_entry_named(change: str) -> None:
    entry, apply = CHANGES[change]
    statement = copy.deepcopy(STATEMENT)
    apply(statement)
    problem = find_contradiction(statement, ENTRIES)
    assert problem is not None
    assert (problem.sequence, problem.finding) == (entry, "contradicted")
    assert str(entry) in problem.reason


def test_a_log_that_ends_before_what_was_attested_is_too_short() -> None:
    for entries in (ENTRIES[:5], []):
        problem = find_contradiction(STATEMENT, entries)
        assert problem is not None
        assert (problem.sequence, problem.finding) == (len(entries), "truncated")


def test_a_forged_signature_is_found() -> None:
    sound = SIGNER.envelope(PAYLOAD_TYPE, canonical(STATEMENT))
    assert find_fault(sound, KEYS, ENTRIES) is None
    value = sound.signatures[0].value
    flipped = bytes([value[0] ^ 1]) + value[1:]
    for signatures, finding in (
        ((Signature(SIGNER.key_id, flipped),), "forged"),
        (OTHER.envelope(PAYLOAD_TYPE, sound.payload).signatures, "forged"),
        ((), "not signed"),
    ):
        forged = Envelope(PAYLOAD_TYPE, sound.payload, signatures)
        problem = find_fault(forged, KEYS, ENTRIES)
        assert problem is not None
        assert (problem.sequence, problem.finding) == (6, finding)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("text/plain", canonical(STATEMENT)),
        (PAYLOAD_TYPE, canonical(STATEMENT) + b" "),
        (PAYLOAD_TYPE, canonical({**STATEMENT, "predicateType": "urn:other"})),
        (PAYLOAD_TYPE, b"\xff"),
        (PAYLOAD_TYPE, b"[]"),
        (PAYLOAD_TYPE, b'{"_type":1.5}'),
        (PAYLOAD_TYPE, b"[" * 100_000),
    ],
)
def test_what_is_no_attestation_is_refused(kind: str, payload: bytes) -> None:
    with pytest.raises(AuditError, match="Expected"):
        read_statement(Envelope(kind, payload, ()))


def test_an_attestation_that_lacks_something_is_refused() -> None:
    with pytest.raises(AuditError, match="complete"):
        find_contradiction({"subject": [], "predicate": {"log": {}}}, ENTRIES)
    with pytest.raises(AuditError, match="names none"):
        request_of({"predicate": []})
