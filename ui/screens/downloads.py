"""Files to keep: reports, letters, attestations, evidence, exports of the audit log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from disinherit.common.audit.line_messages import lines_of
from disinherit.common.errors import InputError
from disinherit.common.exports.finished import without_words
from disinherit.common.graph.formats import dump_graph
from disinherit.documents.campaign.bundle import pack_bundle
from disinherit.documents.campaign.gathering import (
    gather_attestation,
    gather_graph,
    gather_records,
    gather_report,
)
from disinherit.documents.campaign.letter import write_letter
from disinherit.documents.campaign.page import render_campaign
from disinherit.documents.campaign.status_values import whole_report
from disinherit.documents.campaign.values import report_values
from disinherit.documents.lineage.standalone import draw_file
from disinherit.ui.screens.screen import Page
from disinherit.v1 import coordinator_pb2 as pb

GRAPHS: Mapping[str, str] = {
    "graphml": "application/graphml+xml",
    "dot": "text/vnd.graphviz",
    "json": "application/json",
    "svg": "image/svg+xml",
}
"""Format of the graph -> its media type."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file.

    Attributes:
        name: of the file.
        data: its content.
        media_type: of the content.
    """

    name: str
    data: bytes
    media_type: str


def attestation(page: Page) -> Download:
    """Return the signed attestation of a request that has ended."""
    request_id = page.needed("id", "?id=forget-0123456789ab")
    data = gather_attestation(page.visitor, request_id)
    return Download(f"{request_id}.attestation.json", data, "application/json")


def audit_log(page: Page) -> Download:
    """Return an export of the audit log, or of what is about one request."""
    request_id = page.text("request")
    message = pb.ExportAuditRequest(request_id=request_id, several=True)
    lines = lines_of(page.visitor.stream(lambda stub: stub.ExportAudit, message))
    data = b"".join(line + b"\n" for line in lines)
    return Download(f"{request_id or 'audit'}.jsonl", data, "application/jsonl")


def report(page: Page) -> Download:
    """Return the report of a request as a page that needs no coordinator, ready to print."""
    request_id = page.needed("id", "?id=forget-0123456789ab")
    values = report_values(*gather_report(page.visitor, request_id))
    text = render_campaign(gather_records(page.visitor, values))
    return Download(f"{request_id}.report.html", text.encode(), "text/html; charset=utf-8")


def bundle(page: Page) -> Download:
    """Return the evidence about a request that has ended, for verification offline."""
    request_id = page.needed("id", "?id=forget-0123456789ab")
    attested = gather_attestation(page.visitor, request_id)
    values = whole_report(*gather_report(page.visitor, request_id))
    packed = pack_bundle(page.visitor, attested, without_words(values))
    return Download(f"{request_id}.evidence.zip", packed, "application/zip")


def letter(page: Page) -> Download:
    """Return a letter to the person who asked, as a template."""
    request_id = page.needed("id", "?id=forget-0123456789ab")
    values = report_values(*gather_report(page.visitor, request_id))
    text = write_letter(gather_records(page.visitor, values))
    return Download(f"{request_id}.letter.txt", text.encode(), "text/plain; charset=utf-8")


def graph(page: Page) -> Download:
    """Return the graph in a format of other programs; as SVG also what is near one model."""
    form = page.needed("as", "?as=graphml")
    if form not in GRAPHS:
        raise InputError(f"Expected one of {', '.join(GRAPHS)}, but got {form[:50]!r}.")
    found = gather_graph(page.visitor)
    if form == "svg":
        depth = page.number("depth", 2)
        text = draw_file(found, around=page.text("around"), depth=depth)
        return Download("graph.svg", text.encode(), GRAPHS[form])
    written = dump_graph(found, form)
    data = written if isinstance(written, bytes) else written.encode()
    return Download(f"graph.{form}", data, GRAPHS[form])


DOWNLOADS: Mapping[str, Callable[[Page], Download]] = {
    "/campaign/attestation": attestation,
    "/campaign/evidence": bundle,
    "/campaign/letter": letter,
    "/campaign/report": report,
    "/audit/export": audit_log,
    "/graph/export": graph,
}
"""Path -> what makes the file."""
