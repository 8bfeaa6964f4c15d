"""Confusion counts of models, or only the digests of their weights, asked from their owners."""

from collections.abc import Iterator, Mapping, Sequence

from disinherit.common.graph.records import ModelRecord
from disinherit.server.transport.answers import (
    checked_digest,
    checked_evaluation,
    reply_of,
    unhandled,
)
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


def evaluations(
    records: Mapping[str, ModelRecord],
    transport: Transport,
    timeout: float,
    models: Sequence[str],
    *,
    digests_only: bool = False,
) -> Iterator[dict[str, pb.Evaluation]]:
    """Ask the owners of models for confusion counts on their evaluation splits.

    Args:
        records: id -> version; of `models` at least.
        transport: the way to the owners.
        timeout: seconds to wait for their answers.
        models: ids of versions.
        digests_only: whether the digests of what the owners hold are enough.

    Yields:
        For each owner, as it answers, an evaluation of each of its models; with `error` set where
        there is none.
    """
    by_owner: dict[str, list[str]] = {}
    for model in dict.fromkeys(models):
        by_owner.setdefault(records[model].owner, []).append(model)
    asks = [
        Ask(owner, "evaluate.panel", pb.EvaluateTask(model_ids=ids, digests_only=digests_only))
        for owner, ids in by_owner.items()
    ]
    for answer in transport.ask(asks, timeout):
        named = [records[model] for model in by_owner[answer.ask.owner]]
        try:
            found = _checked(named, answer, digests_only)
        except Exception as error:  # one owner's answer must not end the others
            reason = unhandled(answer, error)
            found = {one.id: pb.Evaluation(model_id=one.id, error=reason) for one in named}
        yield found


def _checked(
    records: Sequence[ModelRecord], answer: Answer, digests_only: bool
) -> dict[str, pb.Evaluation]:
    reply, error = reply_of(answer, pb.EvaluateReply)
    sent = {e.model_id: e for e in reply.models} if reply is not None else {}
    missing = pb.Evaluation(error=error or "its owner did not mention it")
    check = checked_digest if digests_only else checked_evaluation
    return {record.id: check(record, sent.get(record.id, missing)) for record in records}
