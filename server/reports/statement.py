"""Statement of an attestation, made from a report.

Like the audit log, it has no free text, class names or sample ids: a signed and distributed
document cannot be erased.
"""

import importlib.metadata
from typing import Protocol

from securesystemslib.dsse import Envelope

from disinherit.common.audit.attestation import (
    LIMITS,
    NOTICE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    coverage_of,
    gaps_of,
    subjects_of,
)
from disinherit.common.audit.canonical import Json, canonical
from disinherit.server.reports.report import Report
from disinherit.server.store.audit_events import method_details, request_digest, request_kind


class Sealer(Protocol):
    """Signer of payloads, such as a `SignedLog` or a `Signer`."""

    def envelope(self, payload_type: str, payload: bytes) -> Envelope:
        """Return a signed envelope of a payload."""
        ...


def attest(report: Report, signer: Sealer) -> Envelope:
    """Return the signed attestation of a campaign; equal reports and keys give equal bytes.

    Raises:
        AuditError: if the report has a value without a canonical form.
    """
    statement: dict[str, Json] = {
        "_type": STATEMENT_TYPE,
        "subject": subjects_of(report.statement_models),
        "predicateType": PREDICATE_TYPE,
        "predicate": _predicate(report),
    }
    return signer.envelope(PAYLOAD_TYPE, canonical(statement))


def _predicate(report: Report) -> Json:
    request = report.request
    method = method_details(request.method)
    return {
        "notice": NOTICE,
        "limits": list(LIMITS),
        "software": {"name": "disinherit", "version": importlib.metadata.version("disinherit")},
        "request": {
            "id": request.id,
            "sha256": request_digest(request),
            "roots": [root.model_id for root in request.roots],
            "forgets": request_kind(request),
            "method": method,
        },
        "state": report.campaign.state.value,
        "times_us": dict(report.times_us),
        "graph": {
            "sha256": report.graph_digest,
            "models": report.versions,
            "edges": report.edges,
        },
        "fishers": {root: list(digests) for root, digests in report.fishers.items()},
        "models": list(report.statement_models),
        "coverage": coverage_of(report.statement_models),
        "gaps": gaps_of(method, report.statement_models),
        "log": {"entries": report.entries, "head": report.head},
    }
