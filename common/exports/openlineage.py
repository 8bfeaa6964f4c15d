"""A request as a run event of OpenLineage: versions before it in, successors out.

The event follows version 2-0-2 of the specification, https://openlineage.io/spec/2-0-2/.
"""

import importlib.metadata
import uuid
from collections.abc import Mapping
from typing import Any

from disinherit.common.exports.finished import (
    FinishedRequest,
    as_instant,
    figures_of,
    remedy_of,
)

NAMESPACE = "disinherit"
"""Namespace of the job and of all versions, whose names are their ids."""

FACET = "disinherit_unlearning"
"""Name of our facets of runs and data sets."""

PRODUCER = "https://arxiv.org/abs/2408.08493"
_SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
_FACETS = "https://openlineage.io/spec/facets/"


def run_event(done: FinishedRequest) -> dict[str, Any]:
    """Return the event that a request has ended: `COMPLETE`, or `ABORT` if it was aborted.

    Its run has an id made of the request's, so that another export is of the same run.
    """
    engine = {"name": "disinherit", "version": importlib.metadata.version("disinherit")}
    return {
        "eventTime": as_instant(done.ended_us),
        "producer": PRODUCER,
        "schemaURL": f"{_SPEC}RunEvent",
        "eventType": "ABORT" if done.state == "aborted" else "COMPLETE",
        "run": {
            "runId": run_id(done.id),
            "facets": {
                FACET: _facet(f"{_SPEC}RunFacet", _run(done)),
                "processing_engine": _facet(
                    f"{_FACETS}1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet",
                    engine,
                ),
            },
        },
        "job": {"namespace": NAMESPACE, "name": "unlearning", "facets": {}},
        "inputs": [
            _version(model["id"], model["owner"], model["digest_before"], {"state": model["state"]})
            for model in done.models
        ],
        "outputs": [
            _version(model["successor"], model["owner"], model["digest_after"], _made(model))
            for model in done.models
            if model["successor"] is not None
        ],
    }


def run_id(request_id: str) -> str:
    """Return the UUID of a request's run.

    Example:
        >>> run_id("forget-cats")
        '7653f557-1b18-5235-8390-53a399310194'
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:disinherit:request:{request_id}"))


def _run(done: FinishedRequest) -> dict[str, Any]:
    predicate = done.predicate
    return {
        "request": done.id,
        "requestSha256": done.request_sha256,
        "forgets": predicate["request"]["forgets"],
        **done.counts(),
        "state": done.state,
        "coverage": predicate["coverage"],
        "gaps": predicate["gaps"],
        "graphSha256": predicate["graph"]["sha256"],
        "attestationSha256": done.attestation_sha256,
        "log": predicate["log"],
        "notice": predicate["notice"],
        "limits": predicate["limits"],
    }


def _made(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a successor was made, and what its owner measured of it."""
    return {
        "madeOf": model["id"],
        "digestBefore": model["digest_before"],
        "digestAfter": model["digest_after"],
        "remedy": remedy_of(model) or None,
        "state": model["state"],
        "figures": figures_of(model),
    }


def _version(name: str, owner: str, digest: str, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a version as a data set, whose version is the digest of its weights."""
    return {
        "namespace": NAMESPACE,
        "name": name,
        "facets": {
            "version": _facet(
                f"{_FACETS}1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
                {"datasetVersion": digest},
            ),
            "ownership": _facet(
                f"{_FACETS}1-0-1/OwnershipDatasetFacet.json#/$defs/OwnershipDatasetFacet",
                {"owners": [{"name": owner, "type": "owner"}]},
            ),
            FACET: _facet(f"{_SPEC}DatasetFacet", shown),
        },
    }


def _facet(schema: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": schema, **values}
