"""Answers to tasks to unlearn, in parts that one transaction can store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from disinherit.server.transport.answers import reply_of
from disinherit.server.transport.base import Answer
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class AnsweredPart:
    """What an owner answered, or did not, about some of its models.

    Attributes:
        answer: the answer.
        reply: its reply; `None` without one.
        error: why there is none.
        models: what it was asked about these models.
    """

    answer: Answer
    reply: pb.UnlearnReply | None
    error: str
    models: Sequence[pb.ModelTask]

    @property
    def asked(self) -> pb.UnlearnTask:
        """The message that it answers."""
        return cast("pb.UnlearnTask", self.answer.ask.task)

    def results(self) -> dict[str, pb.ModelResult]:
        """Return model -> its first result, of these models."""
        named = {model.model_id for model in self.models}
        found: dict[str, pb.ModelResult] = {}
        for result in self.reply.models if self.reply is not None else ():
            if result.model_id in named:
                found.setdefault(result.model_id, result)
        return found


def answered_parts(answer: Answer, most: int) -> Iterator[AnsweredPart]:
    """Yield the parts of an answer.

    Args:
        answer: the answer.
        most: the largest number of models in one.
    """
    reply, error = reply_of(answer, pb.UnlearnReply)
    asked = cast("pb.UnlearnTask", answer.ask.task).models
    for start in range(0, len(asked), most):
        yield AnsweredPart(answer, reply, error, asked[start : start + most])
