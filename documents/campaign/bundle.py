"""The evidence about a request in one file, which can be verified offline."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from disinherit.common.audit.dsse import key_block
from disinherit.common.audit.line_messages import lines_of
from disinherit.documents.campaign.gathering import Caller
from disinherit.v1 import coordinator_pb2 as pb

_STAMP = (1980, 1, 1, 0, 0, 0)
"""Time of every file in it, so that the same evidence is the same bytes."""

_HOW = """\
Evidence about the request {id}, which is {state}.

attestation.json  signed by the coordinator: what was done to every affected version, what is open
audit.jsonl       the entries of its audit log about the request, signed
keys.pem          its public keys; trust them only if their ids are known from another source
report.json       the report, without reason, class names and samples

Verify, offline, in this folder:

    disinherit audit verify audit.jsonl --public-key keys.pem --attestation attestation.json

It attests the procedure and its gaps, and is no proof of erasure.
"""


def pack_bundle(caller: Caller, attestation: bytes, report: Mapping[str, Any]) -> bytes:
    """Return attestation, audit log, keys and report of a request that has ended as a zip file.

    Args:
        caller: who asks.
        attestation: of the request.
        report: of the request, as JSON values.

    Raises:
        DisinheritError: if a call fails.
    """
    request = report["request"]
    ask = pb.ExportAuditRequest(request_id=request["id"], several=True)
    lines = lines_of(caller.stream(lambda stub: stub.ExportAudit, ask))
    known = caller.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    keys = [
        key_block(one.public_pem, one.since_us, one.until_us) for one in known if not one.revoked_us
    ]
    files = {
        "README.txt": _HOW.format(id=request["id"], state=request["state"]).encode(),
        "attestation.json": attestation,
        "audit.jsonl": b"".join(line + b"\n" for line in lines),
        "keys.pem": b"".join(keys),
        "report.json": json.dumps(report, indent=2).encode() + b"\n",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in files.items():
            bundle.writestr(zipfile.ZipInfo(name, _STAMP), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()
