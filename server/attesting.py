"""From a report to the statement that is signed.

People's own words, class names and sample ids are not in it, as they are not in the audit log: a
signed document that is handed around cannot be made to forget either.
"""

import importlib.metadata

from disinherit.common.attestation import (
    DIGEST,
    NOTICE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
)
from disinherit.common.audit_chain import Json, canonical
from disinherit.common.dsse import Envelope, Signer
from disinherit.server.audit_words import method_words, request_digest, result_words
from disinherit.server.gaps import SAID
from disinherit.server.model_report import ModelReport
from disinherit.server.reports import Report
from disinherit.server.tasks import TaskState

LIMITS = (
    "Digests, parameters and counts are what owners reported. That an owner holds what it says, or "
    "nothing besides, is not shown.",
    "Copies of a version that were made outside the inheritance graph are not covered.",
    "Who has a version of before and after can compare them, and may learn from the difference "
    "what was forgotten.",
)
"""What no attestation shows, however complete the campaign was."""


def attest(report: Report, signer: Signer) -> Envelope:
    """Return the signed attestation of a campaign; the same report and key give the same bytes.

    Raises:
        AuditError: if the report holds something that has no canonical form.
    """
    statement: dict[str, Json] = {
        "_type": STATEMENT_TYPE,
        "subject": [subject for model in report.models for subject in _subjects(model)],
        "predicateType": PREDICATE_TYPE,
        "predicate": _predicate(report),
    }
    return signer.envelope(PAYLOAD_TYPE, canonical(statement))


def _subjects(model: ModelReport) -> list[Json]:
    covered = model.covered
    named: list[Json] = [_subject(covered.model_id, covered.digest_before, "before")]
    if covered.successor:
        named.append(_subject(covered.successor, covered.digest_after, "after"))
    return named


def _subject(name: str, digest: str, role: str) -> Json:
    return {"name": name, "digest": {DIGEST: digest}, "annotations": {"role": role}}


def _predicate(report: Report) -> Json:
    request = report.request
    states = [model.covered.state for model in report.models]
    return {
        "notice": NOTICE,
        "limits": list(LIMITS),
        "software": {"name": "disinherit", "version": importlib.metadata.version("disinherit")},
        "request": {
            "id": request.id,
            "sha256": request_digest(request),
            "roots": [root.model_id for root in request.roots],
            "forgets": (
                "client"
                if request.client
                else "samples"
                if any(root.samples for root in request.roots)
                else "classes"
            ),
            "method": method_words(request.method),
        },
        "state": report.campaign.state.value,
        "times_us": dict(report.times_us),
        "graph": {
            "sha256": report.graph_digest,
            "models": len(report.models),
            "edges": report.edges,
        },
        "fishers": {root: list(digests) for root, digests in report.fishers.items()},
        "models": [_model(model) for model in report.models],
        "coverage": {
            "affected": len(states),
            "by_state": {state.value: states.count(state) for state in sorted(set(states))},
            "complete": all(state in (TaskState.VERIFIED, TaskState.EXEMPT) for state in states),
        },
        "gaps": [
            {"kind": gap.kind.value, "models": list(gap.models), "said": SAID[gap.kind]}
            for gap in report.gaps
        ],
        "log": {"entries": report.entries, "head": report.head},
    }


def _model(model: ModelReport) -> Json:
    covered, result = model.covered, model.result
    return {
        "id": covered.model_id,
        "owner": covered.owner,
        "state": covered.state.value,
        "digest_before": covered.digest_before,
        "successor": covered.successor or None,
        "digest_after": covered.digest_after or None,
        "parameters": None if result is None else result_words(result),
        "fishers": list(model.fishers),
        "selected": None
        if result is None
        else {
            "values": sum(sum(one.rows) for one in result.selections),
            "of": sum(one.total for one in result.selections),
        },
        "out_of_scope": None if result is None else list(result.out_of_scope),
        "notified_us": model.told_us or None,
        "destroyed_us": covered.destroyed_us or None,
    }
