"""Attestations against the log: every difference is found, and its entry named."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from disinherit.common.audit.attestation import (
    DIGEST,
    LIMITS,
    NOTICE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    coverage_of,
    gaps_of,
    read_statement,
    request_of,
    subjects_of,
)
from disinherit.common.audit.canonical import Json, canonical, names_digest
from disinherit.common.audit.chain import AuditEvent
from disinherit.common.audit.contradictions import find_contradiction, find_fault, not_compared
from disinherit.common.audit.dsse import Signer, TrustedKeys, enclose, signature_of
from disinherit.common.audit.gaps import GapKind, find_gaps
from disinherit.common.errors import AuditError
from tests.support.audit_cases import chain

PARAMETERS: dict[str, Json] = {"alpha": "1.0", "lam": "0.5", "gauge": "0.0", "tuned": True}
SELECTED: dict[str, Json] = {"values": 3, "of": 40}
METHOD: dict[str, Json] = {"scope": "head", "alpha": "1.0"}
GRAPH: dict[str, Json] = {"sha256": "0d", "models": 2, "edges": 1}
ENTRIES = chain(
    [
        AuditEvent(
            "received",
            1,
            "operator:ci",
            "q",
            parameters={
                "request_sha256": "0e",
                "roots": ["r"],
                "method": METHOD,
                "forgets": "classes",
            },
        ),
        AuditEvent("planned", 2, "coordinator", "q", "r", "anna", "0a"),
        AuditEvent("planned", 2, "coordinator", "q", "s", "ben", "1a"),
        AuditEvent("fisher_received", 3, "owner:anna", "q", "r", "anna", fishers=("f1",)),
        AuditEvent("sent", 4, "coordinator", "q", "r", "anna", "0a", fishers=("f2",)),
        AuditEvent(
            "applied",
            5,
            "owner:anna",
            "q",
            "r",
            "anna",
            "0a",
            "0b",
            {
                **PARAMETERS,
                "successor": "r~q",
                "selected": SELECTED,
                "out_of_scope_sha256": names_digest(["layer"]),
            },
            ("f2",),
        ),
        AuditEvent("notified", 6, "owner:anna", "q", "r", "anna"),
        AuditEvent("verified", 7, "coordinator", "q", "r", "anna", "0a", "0b"),
        AuditEvent("not_notified", 8, "coordinator", "q", "s", "ben"),
        AuditEvent("partial", 8, "coordinator", "q", parameters={"graph": GRAPH}),
        AuditEvent(
            "destroyed", 9, "owner:anna", "q", "r", "anna", "0a", parameters={"held_by": "copy"}
        ),
    ]
)
MODELS: Any = [
    {
        "id": "r",
        "owner": "anna",
        "state": "verified",
        "late": False,
        "digest_before": "0a",
        "successor": "r~q",
        "digest_after": "0b",
        "parameters": PARAMETERS,
        "fishers": ["f2"],
        "selected": SELECTED,
        "out_of_scope": ["layer"],
        "notified_us": 6,
        "destroyed_us": 9,
        "held_by": "copy",
    },
    {
        "id": "s",
        "owner": "ben",
        "state": "pending",
        "late": False,
        "digest_before": "1a",
        "successor": None,
        "digest_after": None,
        "parameters": None,
        "fishers": [],
        "selected": None,
        "out_of_scope": None,
        "notified_us": None,
        "destroyed_us": None,
        "held_by": None,
    },
]
TIMES = {"received": 1, "first_sent": 4, "last_applied": 5, "last_verified": 7, "ended": 8}
STATEMENT: Any = {
    "_type": STATEMENT_TYPE,
    "predicateType": PREDICATE_TYPE,
    "subject": subjects_of(MODELS),
    "predicate": {
        "notice": NOTICE,
        "limits": list(LIMITS),
        "software": {"name": "disinherit", "version": "0"},
        "request": {
            "id": "q",
            "sha256": "0e",
            "roots": ["r"],
            "forgets": "classes",
            "method": METHOD,
        },
        "state": "partial",
        "times_us": {**TIMES, "last_destroyed": 9},
        "graph": GRAPH,
        "fishers": {"r": ["f1"]},
        "models": MODELS,
        "coverage": coverage_of(MODELS),
        "gaps": gaps_of(METHOD, MODELS),
        "log": {"entries": 11, "head": ENTRIES[-1].hash},
    },
}
SIGNER, OTHER = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([i] * 32))) for i in (1, 2))
KEYS = TrustedKeys.from_pem(SIGNER.public_pem)


def model(statement: Any, index: int = 0) -> Any:
    return statement["predicate"]["models"][index]


def remade(statement: Any) -> None:
    """Recompute the fields that follow from the versions."""
    models = statement["predicate"]["models"]
    statement["subject"] = subjects_of(models)
    statement["predicate"]["coverage"] = coverage_of(models)
    statement["predicate"]["gaps"] = gaps_of(METHOD, models)


def about(name: str, value: object, index: int = 0) -> Callable[[Any], object]:
    """Another value of a version's field, with the fields that follow from it."""

    def change(statement: Any) -> None:
        model(statement, index)[name] = value
        remade(statement)

    return change


def predicate(**fields: object) -> Callable[[Any], object]:
    return lambda statement: statement["predicate"].update(fields)


def of_request(**fields: object) -> Callable[[Any], object]:
    return lambda statement: statement["predicate"]["request"].update(fields)


def complete(statement: Any) -> None:
    """The statement of a campaign in which all forgot and all were notified."""
    model(statement, 1).update(state="exempt", notified_us=6)
    remade(statement)
    statement["predicate"].update(state="complete", gaps=[])


def drop_one(statement: Any) -> None:
    del statement["predicate"]["models"][1]
    remade(statement)


def one_more(statement: Any) -> None:
    statement["predicate"]["models"].append({**model(statement, 1), "id": "t"})
    remade(statement)


def twice(statement: Any) -> None:
    statement["predicate"]["models"].append({**model(statement, 1)})
    remade(statement)


ALPHA: dict[str, Json] = {**PARAMETERS, "alpha": "2.0"}
CHANGES: dict[str, tuple[int, Callable[[Any], object]]] = {
    "request": (1, of_request(sha256="0f")),
    "roots": (1, of_request(roots=["s"])),
    "method": (1, of_request(method={**METHOD, "scope": "all"})),
    "whether classes are forgotten or a client": (1, of_request(forgets="client")),
    "root's Fisher": (4, predicate(fishers={"r": ["f0"]})),
    "no root's Fisher": (4, predicate(fishers={})),
    "another root's Fisher": (11, predicate(fishers={"r": ["f1"], "s": []})),
    "the state": (10, predicate(state="complete")),
    "the state of what was taken back": (10, predicate(state="rolled_back")),
    "the times": (11, predicate(times_us={"received": 1, "ended": 2})),
    "the graph": (10, predicate(graph={**GRAPH, "sha256": "00"})),
    "complete, exempt and notified": (10, complete),
    "digest before": (8, about("digest_before", "0c")),
    "digest after": (6, about("digest_after", "0c")),
    "successor": (6, about("successor", "r~p")),
    "parameters": (6, about("parameters", ALPHA)),
    "no parameters": (6, about("parameters", None)),
    "Fisher": (6, about("fishers", [])),
    "selected": (6, about("selected", {"values": 40, "of": 40})),
    "out of scope": (6, about("out_of_scope", [])),
    "unknown what was out of scope": (6, about("out_of_scope", None)),
    "owner": (8, about("owner", "ben")),
    "a notification that was not sent": (3, about("notified_us", 6, 1)),
    "another time of the notification": (7, about("notified_us", 5)),
    "not destroyed": (11, about("destroyed_us", None)),
    "held by no version": (11, about("held_by", None)),
    "a state it never had": (8, about("state", "rolled_back")),
    "a pending one as exempt": (3, about("state", "exempt", 1)),
    "a pending one as failed": (3, about("state", "failed", 1)),
    "a pending one that joined late": (3, about("late", True, 1)),
    "a version less": (3, drop_one),
    "a version more": (11, one_more),
    "a version twice": (11, twice),
    "a subject less": (11, lambda s: s["subject"].pop()),
    "another subject": (11, lambda s: s["subject"][0]["digest"].update({DIGEST: "0c"})),
    "the coverage": (11, lambda s: s["predicate"]["coverage"].update(complete=True)),
    "a gap less": (11, lambda s: s["predicate"]["gaps"].pop()),
    "no gaps": (11, predicate(gaps=[])),
    "a gap in other words": (11, lambda s: s["predicate"]["gaps"][0].update(said="Nothing.")),
    "a proof": (11, predicate(notice="This proves erasure.")),
    "no limits": (11, predicate(limits=[])),
    "something besides": (11, predicate(erased=True)),
    "something besides of the log": (11, lambda s: s["predicate"]["log"].update(proof="erased")),
    "fewer entries": (11, lambda s: s["predicate"]["log"].update(entries=5)),
}


def test_a_statement_that_agrees_with_the_log_has_no_contradiction() -> None:
    assert find_contradiction(STATEMENT, ENTRIES) is None
    later = chain([entry.event for entry in ENTRIES] + [AuditEvent("reopened", 7, "c", "q")])
    assert find_contradiction(STATEMENT, later) is None
    assert not_compared(STATEMENT, later) == ["software"]


def test_fields_missing_in_an_older_log_are_listed() -> None:
    events = [entry.event for entry in ENTRIES]
    older = chain(
        [
            replace(
                event,
                parameters={
                    name: value
                    for name, value in event.parameters.items()
                    if name not in ("forgets", "graph", "selected", "out_of_scope_sha256")
                },
            )
            for event in events
        ]
    )
    statement = copy.deepcopy(STATEMENT)
    statement["predicate"]["log"]["head"] = older[-1].hash
    assert find_contradiction(statement, older) is None
    assert not_compared(statement, older) == [
        "software",
        "request.forgets",
        "graph",
        "models.selected",
        "models.out_of_scope",
    ]


@pytest.mark.parametrize(
    ("remedy", "measured", "expected"),
    [
        (None, False, {GapKind.NOT_MEASURED}),
        ("suppressed", True, set()),
        ("approximated", True, {GapKind.APPROXIMATED}),
        ("approximated", False, {GapKind.APPROXIMATED, GapKind.NOT_MEASURED}),
        ("replayed", True, set()),
        ("replayed", False, set()),
        ("believed", False, {GapKind.BELIEVED}),
    ],
)
def test_versions_that_were_not_trained_again_exactly_are_a_gap(
    remedy: str | None, measured: bool, expected: set[GapKind]
) -> None:
    parameters: dict[str, object] = {} if remedy is None else {"remedy": remedy}
    if remedy == "believed":
        parameters = {"remedy": "replayed", "believed": True}
    if measured:
        parameters["forget"] = {"margin": "0.01"}
    version = {
        "id": "m",
        "late": False,
        "state": "verified",
        "parameters": parameters,
        "successor": "m~q",
        "out_of_scope": [],
        "destroyed_us": 1,
        "held_by": "",
        "notified_us": 1,
    }
    assert {gap.kind for gap in find_gaps({"scope": "all"}, [version])} == expected
    left = version | {"state": "ineffective"}
    kinds = {gap.kind for gap in find_gaps({"scope": "all"}, [left])}
    assert GapKind.APPROXIMATED not in kinds


def test_a_late_version_has_no_entry_and_no_further_fields() -> None:
    statement = copy.deepcopy(STATEMENT)
    late = {**model(statement, 1), "id": "t", "late": True}
    statement["predicate"]["models"].append(late)
    remade(statement)
    assert find_contradiction(statement, ENTRIES) is None
    assert "versions that joined late" in not_compared(statement, ENTRIES)
    for name, value in (("state", "verified"), ("notified_us", 5), ("late", False)):
        claimed = copy.deepcopy(statement)
        about(name, value, 2)(claimed)
        assert find_contradiction(claimed, ENTRIES) is not None


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
    for entries in (ENTRIES[:10], []):
        problem = find_contradiction(STATEMENT, entries)
        assert problem is not None
        assert (problem.sequence, problem.finding) == (len(entries), "truncated")


def test_a_forged_signature_is_found() -> None:
    sound = SIGNER.envelope(PAYLOAD_TYPE, canonical(STATEMENT))
    assert find_fault(sound, KEYS, ENTRIES) is None
    value = bytes.fromhex(sound.signatures[SIGNER.key_id].signature)
    flipped = bytes([value[0] ^ 1]) + value[1:]
    for signatures, finding in (
        ([signature_of(SIGNER.key_id, flipped)], "forged"),
        ([OTHER.sign(PAYLOAD_TYPE, sound.payload)], "forged"),
        ([], "not signed"),
    ):
        forged = enclose(PAYLOAD_TYPE, sound.payload, signatures)
        problem = find_fault(forged, KEYS, ENTRIES)
        assert problem is not None
        assert (problem.sequence, problem.finding) == (11, finding)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("text/plain", canonical(STATEMENT)),
        (PAYLOAD_TYPE, canonical(STATEMENT) + b" "),
        (PAYLOAD_TYPE, canonical({**STATEMENT, "predicateType": "urn:other"})),
        (PAYLOAD_TYPE, canonical({**STATEMENT, "predicateType": PREDICATE_TYPE[:-1] + "1"})),
        (PAYLOAD_TYPE, b"\xff"),
        (PAYLOAD_TYPE, b"[]"),
        (PAYLOAD_TYPE, b'{"_type":1.5}'),
        (PAYLOAD_TYPE, b"[" * 100_000),
    ],
)
def test_other_documents_are_refused_as_attestations(kind: str, payload: bytes) -> None:
    with pytest.raises(AuditError, match="Expected"):
        read_statement(enclose(kind, payload, []))


def test_an_incomplete_attestation_is_refused() -> None:
    with pytest.raises(AuditError, match="complete"):
        find_contradiction({"subject": [], "predicate": {"log": {}}}, ENTRIES)
    with pytest.raises(AuditError, match="names none"):
        request_of({"predicate": []})
