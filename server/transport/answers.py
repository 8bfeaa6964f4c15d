"""Validation of owners' answers.

An answer counts only for the owner's own models.  Anything else in it becomes a recorded reason for
the models concerned, and never changes another owner's models.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message

from disinherit.common.errors import FisherError, GraphError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import clipped
from disinherit.common.text import one_line
from disinherit.common.wire.received import received_record
from disinherit.server.transport.base import Answer
from disinherit.v1 import unlearning_pb2 as pb
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto

M = TypeVar("M", bound=Message)

_log = logging.getLogger(__name__)


def reply_of(answer: Answer, kind: type[M]) -> tuple[M | None, str]:
    """Return the reply and `""`, or `None` and the reason."""
    if isinstance(answer.reply, kind):
        return answer.reply, ""
    reason = one_line(answer.error) or (
        f"owner {answer.ask.owner} did not answer with a {kind.DESCRIPTOR.full_name}"
    )
    return None, reason


def is_older(answer: Answer) -> bool:
    """Return whether an owner does not know the action that it was asked for.

    Agents of older releases list the actions that they know, and a Flower ClientApp has no function
    for others.
    """
    kind, _, name = answer.ask.action.partition(".")
    unknown = (
        f"but got {answer.ask.action!r}",
        f"No {kind} function registered with name '{name}'",
    )
    return answer.reply is None and any(words in answer.error for words in unknown)


def unhandled(answer: Answer, error: Exception) -> str:
    """Return the reason for an answer that made the coordinator fail, and log the traceback.

    No answer of one owner may stop the work for others: it becomes a reason at its own models.
    Errors of the store do not belong here: no owner causes them.
    """
    _log.error(
        "cannot handle what owner %s answered to %s",
        answer.ask.owner,
        answer.ask.action,
        exc_info=error,
    )
    return (
        f"the coordinator cannot handle what owner {answer.ask.owner} answered "
        f"({type(error).__name__}); see its log"
    )


def refusal_of(result: pb.RollBackResult | pb.DestroyResult | None, expected: str, did: str) -> str:
    """Return why an owner's result for a version is not the requested one, or `""`.

    Args:
        result: the result; `None` if the answer has none for the version.
        expected: the version's digest.
        did: the verb phrase before the reported digest, such as "put back".
    """
    if result is None:
        return "its owner did not mention it"
    if result.outcome not in (pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED):
        return one_line(result.error) or "its owner reported no outcome"
    if result.digest != expected:
        return f"its digest was {expected}, but its owner {did} {one_line(result.digest)}"
    return ""


def registered_record(
    owner: str, message: RecordProto, known: Mapping[str, ModelRecord]
) -> ModelRecord:
    """Return the record of a version that an owner registers.

    A known version keeps its status, which only the coordinator sets, and the values of its first
    registration (`disinherit.server.store.registering`).

    Args:
        owner: the owner that answered.
        message: the version.
        known: id -> record, of registered versions.

    Raises:
        GraphError: if it is malformed or belongs to another owner.
    """
    record = received_record(message)
    if record.owner != owner:
        raise GraphError(
            f"Expected models of {owner!r} from this owner, but got {record.id!r} of "
            f"{record.owner!r}."
        )
    if record.id not in known:
        return record
    present = known[record.id]
    if present.owner != owner:  # without naming its owner
        raise GraphError(f"Expected a model id that is not taken, but got {record.id!r}.")
    return replace(first_word(present, record), status=present.status)


def root_packets(
    root: pb.Root, record: ModelRecord, fisher: pb.RootFisher
) -> list[pb.FisherPacket]:
    """Return the Fisher packets that an owner sent for a root.

    Args:
        root: the root in the request.
        record: the root's record.
        fisher: the owner's answer.

    Raises:
        FisherError: if the owner reports an error, or the packets do not have exactly the classes
            to forget at this root.
    """
    if fisher.error:
        withheld = f"withheld by owner {record.owner}: " if fisher.withheld else ""
        raise FisherError(withheld + one_line(fisher.error))
    packets = list(fisher.packets)
    if not root.classes and len(packets) != 1:
        raise FisherError(
            f"Expected one Fisher information of all samples to forget, but its owner sent "
            f"{len(packets)}."
        )
    got = sorted(name for packet in packets for name in packet.classes)
    if got != sorted(root.classes):
        raise FisherError(
            f"Expected Fisher information of {', '.join(sorted(root.classes)) or 'no class'}, but "
            f"its owner sent that of {clipped(', '.join(got)) or 'no class'}."
        )
    for packet in packets:
        if list(packet.sources) != [record.id] or tuple(packet.labels) != record.labels:
            raise FisherError(
                f"Expected Fisher information from {record.id} with its classes "
                f"{clipped(str(list(record.labels)))}, but its owner sent that of "
                f"{clipped(str(list(packet.sources)))} with classes "
                f"{clipped(str(list(packet.labels)))}."
            )
    return packets


def checked_digest(model_id: str, evaluation: pb.Evaluation) -> pb.Evaluation:
    """Return the digest that an owner reports for a model, or the reason for its absence."""
    digest, error = one_line(evaluation.digest), one_line(evaluation.error)
    if not digest and not error:
        error = "its owner sent no digest"
    missing = evaluation.missing and not digest
    return pb.Evaluation(model_id=model_id, digest=digest, error=error, missing=missing)


def checked_evaluation(record: ModelRecord, evaluation: pb.Evaluation) -> pb.Evaluation:
    """Return an owner's evaluation of a model; if it is invalid, one with the reason."""
    if evaluation.error:
        reason, digest = one_line(evaluation.error), one_line(evaluation.digest)
        return pb.Evaluation(model_id=record.id, digest=digest, error=reason)
    classes = len(record.labels)
    if tuple(evaluation.labels) != record.labels or len(evaluation.confusion) != classes**2:
        error = (
            f"Expected confusion counts of the {classes} classes of {record.id}, but got "
            f"{len(evaluation.confusion)} counts of classes {list(evaluation.labels)}."
        )
        return pb.Evaluation(model_id=record.id, error=one_line(error))
    if any(count < 0 for count in evaluation.confusion):
        error = f"Expected confusion counts >= 0 of {record.id}, but got negative ones."
        return pb.Evaluation(model_id=record.id, error=error)
    return evaluation


def first_word(present: ModelRecord, record: ModelRecord) -> ModelRecord:
    """Return the record of a version that is registered again: its first values count.

    The size of its Fisher summary and its provenance bound what its owner may send.  Both keep
    their first values until the Fisher summary changes.  Without a new Fisher summary, the known
    one stays.

    Args:
        present: the stored record.
        record: the new record.
    """
    if record.fisher_digest not in ("", present.fisher_digest):
        return record
    scale = record.fisher_scale
    if present.fisher_scale is not None:
        scale = present.fisher_scale.counted_as(scale)
    return replace(
        record,
        fisher_digest=present.fisher_digest,
        fisher_scale=scale,
        provenance=record.provenance if present.provenance is None else present.provenance,
    )
