"""Answers of owners, checked before they are believed.

An owner speaks for its own models only.  Whatever else an answer holds becomes a reason that is
recorded for the models concerned, and never a change of anyone else's.
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
    """Return the reply and `""`, or `None` and the reason why there is none."""
    if isinstance(answer.reply, kind):
        return answer.reply, ""
    reason = one_line(answer.error) or (
        f"owner {answer.ask.owner} did not answer with a {kind.DESCRIPTOR.full_name}"
    )
    return None, reason


def unhandled(answer: Answer, error: Exception) -> str:
    """Return why an answer has no effect that made the coordinator fail, and log the traceback.

    Whatever an owner sends, it must not end what is done for the others: it is a reason at its own
    models.  Errors of the store are not an owner's doing and are not for here.
    """
    _log.error(
        "cannot handle what owner %s answered to %s",
        answer.ask.owner,
        answer.ask.action,
        exc_info=error,
    )
    return (
        f"the coordinator cannot handle what owner {answer.ask.owner} answered "
        f"({type(error).__name__}); its log says why"
    )


def refusal_of(result: pb.RollBackResult | pb.DestroyResult | None, expected: str, did: str) -> str:
    """Return why what an owner says of a version is not what was asked of it, or `""`.

    Args:
        result: what it says; `None` if it does not mention the version.
        expected: the version's digest.
        did: what it says that it did with a digest, for people to read.
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
    """Return the version that an owner registers.

    What became of a known version is the coordinator's own knowledge, so its status stays; and so
    does what was said first of it (`disinherit.server.store.registering`).

    Args:
        owner: who answered.
        message: the version.
        known: id -> version, of those that are registered already.

    Raises:
        GraphError: if it is malformed or another owner's.
    """
    record = received_record(message)
    if record.owner != owner:
        raise GraphError(
            f"Expected models of {owner!r} from it, but got {record.id!r} of {record.owner!r}."
        )
    if record.id not in known:
        return record
    present = known[record.id]
    if present.owner != owner:  # and not whose it is
        raise GraphError(f"Expected a model id that is not taken, but got {record.id!r}.")
    return replace(first_word(present, record), status=present.status)


def root_packets(
    root: pb.Root, record: ModelRecord, fisher: pb.RootFisher
) -> list[pb.FisherPacket]:
    """Return the Fisher packets that an owner sent for a root.

    Args:
        root: what was asked for.
        record: the root.
        fisher: what was answered.

    Raises:
        FisherError: if the owner could not tell, or they are not those of exactly the classes to
            forget at this root.
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
            f"its owner sent "
            f"that of {clipped(', '.join(got)) or 'no class'}."
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
    """Return what an owner holds of a model by its own words: a digest, or why there is none."""
    digest, error = one_line(evaluation.digest), one_line(evaluation.error)
    if not digest and not error:
        error = "its owner sent no digest"
    missing = evaluation.missing and not digest
    return pb.Evaluation(model_id=model_id, digest=digest, error=error, missing=missing)


def checked_evaluation(record: ModelRecord, evaluation: pb.Evaluation) -> pb.Evaluation:
    """Return an owner's evaluation of a model, or one that says why it is none."""
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
    """Return a known version as it is registered again: what was said first of it counts.

    How large its Fisher summary is and what it was trained on bound what its owner may send when
    something is to be forgotten.  They stay as they were said first, until there is another Fisher
    summary; and one that is not mentioned any more is the one that there was.

    Args:
        present: the version as it is stored.
        record: the version as it is registered now.
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
