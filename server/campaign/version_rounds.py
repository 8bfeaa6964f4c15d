"""Queries to owners about versions they hold: to put them back, or to destroy them.

Each owner gets one message.  The next pass asks unreachable owners again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from disinherit.common.errors import GraphError
from disinherit.common.graph.identifiers import check_id
from disinherit.common.text import one_line
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.store.audit_events import request_digest
from disinherit.server.transport.answers import refusal_of, reply_of, unhandled
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb

_Task = pb.RollBackTask | pb.DestroyTask
_Reply = pb.RollBackReply | pb.DestroyReply
_Result = pb.RollBackResult | pb.DestroyResult


@dataclass(frozen=True, slots=True)
class Question:
    """A query about versions.

    Attributes:
        action: one of `disinherit.common.wire.messages.ACTIONS`.
        task: the message.
        reply: the answer to it.
        did: the owner's action on a digest, for people to read.
    """

    action: str
    task: type[_Task]
    reply: type[_Reply]
    did: str


ROLL_BACK = Question("train.rollback", pb.RollBackTask, pb.RollBackReply, "holds")
DESTROY = Question("train.destroy", pb.DestroyTask, pb.DestroyReply, "destroyed")


@dataclass(frozen=True, slots=True)
class VersionAnswer:
    """An owner's answer about one version.

    Attributes:
        model_id: the version.
        digest: its `weights_digest`, as registered.
        refusal: why it was not done; `""` if it was.
        held_by: another version of the owner with identical weights; `""` for none.
    """

    model_id: str
    digest: str
    refusal: str
    held_by: str = ""


def ask_about(
    one: Pass, models: Sequence[str], question: Question
) -> Iterator[list[VersionAnswer]]:
    """Yield the answers of each reachable owner, as they arrive.

    Args:
        one: the pass.
        models: the versions.
        question: the query.
    """
    id, digest = one.request.id, request_digest(one.request)
    messages: dict[str, _Task] = {}
    for record in map(one.graph.model, models):
        message = messages.setdefault(
            record.owner, question.task(request_id=id, request_digest=digest)
        )
        message.models.add(model_id=record.id, digest=record.digest)
    asks = [Ask(owner, question.action, message) for owner, message in messages.items()]
    for answer in one.ask(asks) if asks else ():
        if not answer.unreachable:
            yield _answers(question, answer)
        one.say(one_line(answer.error) or f"{answer.ask.owner} answered")


def _answers(question: Question, answer: Answer) -> list[VersionAnswer]:
    asked = {one.model_id: one.digest for one in cast("_Task", answer.ask.task).models}
    try:
        return _read(question, answer, asked)
    except Exception as error:  # one answer must not stop the others
        reason = unhandled(answer, error)
        return [VersionAnswer(model, digest, reason) for model, digest in asked.items()]


def _read(question: Question, answer: Answer, asked: Mapping[str, str]) -> list[VersionAnswer]:
    reply, error = reply_of(answer, question.reply)
    results: dict[str, _Result] = {}
    if reply is not None:
        results = {result.model_id: result for result in reply.models}
    found = []
    for model, digest in asked.items():
        result = results.get(model)
        refusal = error or refusal_of(result, digest, question.did)
        held_by = result.held_by if isinstance(result, pb.DestroyResult) else ""
        try:
            if held_by:  # the audit log keeps it for ever
                check_id(held_by, "id of the version that holds its weights")
        except GraphError as wrong:
            refusal, held_by = refusal or str(wrong), ""
        found.append(VersionAnswer(model, digest, refusal, held_by))
    return found
