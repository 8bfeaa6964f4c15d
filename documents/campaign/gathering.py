"""Everything that a document about a request is made from, asked of the coordinator."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.proto import inheritance_from_proto, record_from_proto
from disinherit.documents.campaign.members import CampaignRecords
from disinherit.v1 import coordinator_pb2 as pb

_ENDED = ("complete", "partial", "aborted", "rolled_back")


class Caller(Protocol):
    """Somebody with a connection to the coordinator and a token."""

    def call(self, method: Callable[[Any], Any], request: Any) -> Any:
        """Make one call and return its answer."""
        ...

    def stream(self, method: Callable[[Any], Any], request: Any) -> Iterator[Any]:
        """Make a call and yield its answers."""
        ...

    def pages(self, method: Callable[[Any], Any], request: Any) -> Iterator[Any]:
        """Yield all pages of a call."""
        ...


def gather_report(caller: Caller, request_id: str) -> tuple[pb.ReportSummary, list[pb.ModelReport]]:
    """Return what `report_values` makes the report of a request from.

    Raises:
        DisinheritError: if a call fails.
    """
    models: list[pb.ModelReport] = []
    for answer in caller.pages(lambda stub: stub.GetReport, pb.GetReportRequest(id=request_id)):
        models += answer.models
    return answer.summary, models


def gather_records(caller: Caller, report: Mapping[str, Any]) -> CampaignRecords:
    """Return all that a document about a request is made from.

    Args:
        caller: who asks.
        report: by `report_values`.

    Raises:
        DisinheritError: if a call fails.
    """
    known = caller.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    request = report["request"]
    attestation = b""
    if known and request["state"] in _ENDED:
        attestation = gather_attestation(caller, request["id"])
    return CampaignRecords(
        report=report,
        graph=gather_graph(caller),
        keys=[one.key_id for one in known if not one.revoked_us],
        attestation_sha256=hashlib.sha256(attestation).hexdigest() if attestation else "",
        made=datetime.now(UTC),
        version=importlib.metadata.version("disinherit"),
    )


def gather_attestation(caller: Caller, request_id: str) -> bytes:
    """Return the signed attestation of a request that has ended, as the content of its file.

    Raises:
        DisinheritError: if the call fails.
    """
    ask = pb.GetAttestationRequest(id=request_id)
    parts = caller.stream(lambda stub: stub.GetAttestation, ask)
    return b"".join(part.data for part in parts) + b"\n"


def gather_graph(caller: Caller) -> InheritanceGraph:
    """Return the coordinator's graph.

    Raises:
        DisinheritError: if the call fails.
    """
    parts = list(caller.stream(lambda stub: stub.GetGraph, pb.GetGraphRequest()))
    return InheritanceGraph(
        (record_from_proto(one) for part in parts for one in part.models),
        (inheritance_from_proto(one) for part in parts for one in part.edges),
    )
