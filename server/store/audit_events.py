"""Events of the audit log: kinds of entries and their parameters.

Entries hold nothing that somebody may have a right to have erased, since a hash chain cannot
forget: no reasons or error texts, which people wrote, no class names and no sample ids.  A request
appears as the SHA-256 of its message without the reason.
"""

import enum
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping

from disinherit.common.audit.canonical import Json, canonical, names_digest
from disinherit.common.encodings import Encoding
from disinherit.common.graph.formats import lineage_digest
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.common.wire.recognition import ATTACK_FIGURES, SAMPLE_FIGURES
from disinherit.common.wire.remedies import remedy_word
from disinherit.server.states import CampaignEvent, CampaignState, Task, TaskState
from disinherit.v1.unlearning_pb2 import (
    AppliedDelta,
    Method,
    ModelResult,
    Recognition,
    UnlearningRequest,
)

COORDINATOR = "coordinator"
"""The actor of entries that no caller caused."""


class AuditKind(enum.StrEnum):
    """What an entry of the audit log records."""

    MODEL_REGISTERED = "model_registered"
    MODEL_COMPLETED = "model_completed"
    MODEL_WITHDRAWN = "model_withdrawn"
    MODEL_RETIRED = "model_retired"
    SIGNING_KEY = "signing_key"
    KEY_REVOKED = "key_revoked"
    CHECKPOINT = "checkpoint"
    CLOCK_CONFIRMED = "clock_confirmed"
    HISTORY_CONFIRMED = "history_confirmed"

    RECEIVED = "received"
    APPROVED = "approved"
    PAUSED = "paused"
    RESUMED = "resumed"
    ABORTED = "aborted"
    REOPENED = "reopened"
    WAVE_DECIDED = "wave_decided"
    HALT_DECIDED = "halt_decided"
    COMPLETED = "completed"
    PARTIAL = "partial"
    ROLLBACK_DECIDED = "rollback_decided"
    ROLLBACK_COMPLETED = "rollback_completed"

    PLANNED = "planned"
    EXEMPT = "exempt"
    HALTED = "halted"
    FISHER_RECEIVED = "fisher_received"
    FISHER_DISCARDED = "fisher_discarded"
    SENT = "sent"
    APPLIED = "applied"
    VERIFIED = "verified"
    INEFFECTIVE = "ineffective"
    NOT_REACHED = "not_reached"
    HARMFUL = "harmful"
    FAILED = "failed"
    NOTIFIED = "notified"
    NOT_NOTIFIED = "not_notified"
    ROLLBACK_PLANNED = "rollback_planned"
    ROLLBACK_REFUSED = "rollback_refused"
    ROLLED_BACK = "rolled_back"
    UNAPPROVED = "unapproved"
    FELL_BACK = "fell_back"
    RESENT = "resent"
    DESTROYED = "destroyed"
    DESTROY_REFUSED = "destroy_refused"


GROWTH = (
    AuditKind.MODEL_REGISTERED,
    AuditKind.MODEL_COMPLETED,
    AuditKind.APPLIED,
    AuditKind.INEFFECTIVE,
    AuditKind.ROLLED_BACK,
)
"""Events that add a version or an edge, or put a version back into use."""

OF_EVENT: Mapping[CampaignEvent, AuditKind] = {
    CampaignEvent.APPROVE: AuditKind.APPROVED,
    CampaignEvent.PAUSE: AuditKind.PAUSED,
    CampaignEvent.HALT: AuditKind.HALT_DECIDED,
    CampaignEvent.RESUME: AuditKind.RESUMED,
    CampaignEvent.ABORT: AuditKind.ABORTED,
    CampaignEvent.REOPEN: AuditKind.REOPENED,
    CampaignEvent.ROLL_BACK: AuditKind.ROLLBACK_DECIDED,
}
"""Events that a person, a late descendant or a threshold causes in a campaign."""

OF_OUTCOME: Mapping[CampaignState, AuditKind] = {
    CampaignState.RUNNING: AuditKind.REOPENED,
    CampaignState.COMPLETE: AuditKind.COMPLETED,
    CampaignState.PARTIAL: AuditKind.PARTIAL,
    CampaignState.ROLLING_BACK: AuditKind.ROLLBACK_DECIDED,
    CampaignState.ROLLED_BACK: AuditKind.ROLLBACK_COMPLETED,
}
"""State of a campaign after a pass."""

DECISIONS = frozenset(
    (
        *OF_EVENT.values(),
        *OF_OUTCOME.values(),
        AuditKind.RECEIVED,
        AuditKind.RESENT,
        AuditKind.WAVE_DECIDED,
    )
)
"""Decisions about a whole request, from its submission to its end."""

OF_TASK: Mapping[TaskState, AuditKind] = {
    TaskState.PENDING: AuditKind.PLANNED,
    TaskState.SENT: AuditKind.SENT,
    TaskState.APPLIED: AuditKind.APPLIED,
    TaskState.VERIFIED: AuditKind.VERIFIED,
    TaskState.INEFFECTIVE: AuditKind.INEFFECTIVE,
    TaskState.NOT_REACHED: AuditKind.NOT_REACHED,
    TaskState.HARMFUL: AuditKind.HARMFUL,
    TaskState.FAILED: AuditKind.FAILED,
    TaskState.EXEMPT: AuditKind.EXEMPT,
    TaskState.HALTED: AuditKind.HALTED,
    TaskState.ROLLING_BACK: AuditKind.ROLLBACK_PLANNED,
    TaskState.ROLLED_BACK: AuditKind.ROLLED_BACK,
    TaskState.UNAPPROVED: AuditKind.UNAPPROVED,
}
"""State of a model's task."""


def owner_actor(owner: str) -> str:
    """Return the actor name of an owner.

    Example:
        >>> owner_actor("anna")
        'owner:anna'
    """
    return f"owner:{owner}"


def request_details(request: UnlearningRequest, deadline_us: int) -> dict[str, Json]:
    """Return the parameters of an entry about a submitted request.

    Args:
        request: the request.
        deadline_us: when unreachable owners are given up; 0 for never.
    """
    return {
        "request_sha256": request_digest(request),
        "roots": [root.model_id for root in request.roots],
        "method": method_details(request.method),
        "forgets": request_kind(request),
        "deadline_us": deadline_us,
    }


def request_kind(request: UnlearningRequest) -> str:
    """Return the kind of a request: `client`, `samples` or `classes`."""
    if request.client:
        return "client"
    return "samples" if any(root.samples for root in request.roots) else "classes"


def request_digest(request: UnlearningRequest) -> str:
    """Return the SHA-256 of a request without its reason, as deterministic protobuf bytes."""
    asked = UnlearningRequest()
    asked.CopyFrom(request)
    asked.ClearField("reason")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()


def method_details(method: Method) -> dict[str, Json]:
    """Return the parameters of a method, without those that owners tune themselves.

    Example:
        >>> method_details(Method(scope="head", alpha=0.5))["alpha"]
        '0.5'
    """
    details: dict[str, Json] = {
        "scope": method.scope,
        "reference": method.reference,
        "merge": method.merge,
        "exponent": repr(method.exponent),
        "bound": repr(method.bound),
        "row_scoped": method.row_scoped,
    }
    for name in ("alpha", "lam", "gauge"):
        if method.HasField(name):
            details[name] = repr(getattr(method, name))
    if method.repair_steps:
        details["repair_steps"] = method.repair_steps
    if method.min_inheritance:
        details["min_inheritance"] = repr(method.min_inheritance)
    if method.HasField("rescale"):
        details["rescale"] = method.rescale
    if method.encoding:
        details["encoding"] = str(Encoding.from_proto(method.encoding))
    if method.mechanism:
        details |= {"mechanism": method.mechanism, "root_method": method.root_method}
    if method.calibration_rounds:
        details["calibration_rounds"] = method.calibration_rounds
    return details


def task_details(task: Task) -> dict[str, Json]:
    """Return the parameters of an entry about a task; empty unless its owner applied it."""
    if task.result is None or not (task.state is TaskState.APPLIED or task.state.unforgotten):
        return {}
    made = task.successor
    details = result_details(task.result) | {"selected": selection_details(task.result)}
    if names := names_digest(task.result.out_of_scope):
        details["out_of_scope_sha256"] = names
    return details if made is None else {"successor": made.id, **details}


def selection_details(result: ModelResult) -> dict[str, Json]:
    """Return the number of dampened values, and the number of all values."""
    return {
        "values": sum(sum(one.rows) for one in result.selections),
        "of": sum(one.total for one in result.selections),
    }


def result_details(result: ModelResult) -> dict[str, Json]:
    """Return the strength of unlearning, its measurements and the remedy."""
    details: dict[str, Json] = {}
    if result.alpha:  # zero if only rows of the head were taken out
        details |= {name: repr(getattr(result, name)) for name in ("alpha", "lam", "gauge")}
        details["tuned"] = result.tuned
    if result.repair_steps:
        details["repair_steps"] = result.repair_steps
    for name in ("inheritance", "retain_before", "retain_after"):
        if result.HasField(name):
            details[name] = repr(getattr(result, name))
    if result.scale not in (0, 1):
        details["scale"] = repr(result.scale)
    if result.HasField("forget"):
        details["forget"] = recognition_details(result.forget)
    if result.not_covered:
        details["not_covered"] = len(result.not_covered)
    if result.tied:
        details["tied"] = len(result.tied)
    if result.HasField("cleared_recorded"):
        details["cleared_before"] = "recorded" if result.cleared_recorded else "unrecorded"
    if result.remedy:
        details["remedy"] = remedy_word(result.remedy)
    if result.believed:
        details["believed"] = True
    if result.deltas:
        details["deltas"] = [_delta_details(one) for one in result.deltas]
    return details


def _delta_details(delta: AppliedDelta) -> dict[str, Json]:
    """Return the share of a root's change, and how it was made."""
    details: dict[str, Json] = {
        "root": delta.root,
        "coefficient": repr(delta.coefficient),
        "root_method": delta.root_method,
    }
    if delta.HasField("measured"):
        details["measured"] = repr(delta.measured)
    return details


def recognition_details(found: Recognition) -> dict[str, Json]:
    """Return the measurement of how well a model recognises the forget set.

    Example:
        >>> recognition_details(Recognition(measure="accuracy", before=0.9, samples=40))["before"]
        '0.9'
    """
    details: dict[str, Json] = {
        "measure": found.measure,
        "before": repr(found.before),
        "after": repr(found.after),
        "floor": repr(found.floor),
        "margin": repr(found.margin),
        "samples": found.samples,
        "source": found.source,
    }
    if found.measure == "auc":
        for name in SAMPLE_FIGURES:
            details[name] = repr(getattr(found, name))
        if found.HasField("found_after"):
            for name in ATTACK_FIGURES:
                details[name] = repr(getattr(found, name))
            details["unseen"] = found.unseen
        if found.HasField("among_kept"):
            details["among_kept"] = repr(found.among_kept)
        if found.HasField("moved"):
            details["moved"] = repr(found.moved)
    return details


def scale_details(record: ModelRecord) -> dict[str, Json]:
    """Return the sum and the scope of a version's Fisher summary."""
    if record.fisher_scale is None:
        return {}
    total = math.fsum(record.fisher_scale.sums)
    return {"fisher_scale": repr(total), "fisher_scope": record.fisher_scale.scope}


def inheritance_details(edges: Iterable[Inheritance]) -> dict[str, Json]:
    """Return the number and the SHA-256 of the edges that lead to a version.

    A merge may have thousands of parents, so they are not listed; the graph has them.
    """
    listed: list[Json] = [
        [
            edge.parent,
            edge.kind.value,
            repr(float(edge.weight)),
            dict(edge.labels),
            *((str(edge.recipe), edge.place) if edge.recipe else ()),
        ]
        for edge in sorted(edges, key=lambda edge: edge.parent)
    ]
    if not listed:
        return {"parents": 0}
    digest = hashlib.sha256(canonical(listed)).hexdigest()
    return {"parents": len(listed), "inheritance_sha256": digest}


def graph_details(graph: InheritanceGraph, models: Collection[str]) -> dict[str, str | int]:
    """Return the digest and the numbers of some versions and the edges that lead to them.

    Args:
        graph: holds the versions and their parents.
        models: ids of the versions.

    Raises:
        GraphError: if a version is unknown.
    """
    return {
        "sha256": lineage_digest(graph, models),
        "models": len(models),
        "edges": sum(len(graph.parents(model)) for model in models),
    }
