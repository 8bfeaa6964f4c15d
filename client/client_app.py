"""The Flower ClientApp of an owner: unpack, call the handler, pack.

Messages: `query.identify`, `query.register`, `query.fisher`, `train.unlearn`, `evaluate.panel`,
`evaluate.preview`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from google.protobuf import message as protobuf

from disinherit.client.evaluating import evaluate, preview
from disinherit.client.owner import Owner
from disinherit.client.summaries import forget_fishers, register
from disinherit.client.unlearning import unlearn
from disinherit.common.flower_records import pack, unpack
from disinherit.v1 import unlearning_pb2 as pb

OpenOwner = Callable[[Context], AbstractContextManager[Owner]]
"""Opens the owner that a Flower context belongs to, for the time of one message."""

Task = TypeVar("Task", bound=protobuf.Message)


def build_client_app(open_owner: OpenOwner) -> ClientApp:
    """Return a ClientApp that serves the models of an owner.

    Args:
        open_owner: gives the owner for a message's Flower context.

    Returns:
        An app to which further handlers may be added.
    """
    app = ClientApp()

    def serve(
        message: Message,
        context: Context,
        kind: type[Task],
        handler: Callable[[Owner, Task], protobuf.Message],
    ) -> Message:
        task = unpack(message.content, kind)
        with open_owner(context) as owner:
            return Message(pack(handler(owner, task)), reply_to=message)

    @app.query("identify")
    def _identify(message: Message, context: Context) -> Message:
        with open_owner(context) as owner:
            return Message(pack(pb.Identity(owner=owner.store.owner)), reply_to=message)

    @app.query("register")
    def _register(message: Message, context: Context) -> Message:
        return serve(message, context, pb.RegisterTask, register)

    @app.query("fisher")
    def _fisher(message: Message, context: Context) -> Message:
        return serve(message, context, pb.FisherTask, forget_fishers)

    @app.train("unlearn")
    def _unlearn(message: Message, context: Context) -> Message:
        return serve(message, context, pb.UnlearnTask, unlearn)

    @app.evaluate("panel")
    def _evaluate(message: Message, context: Context) -> Message:
        return serve(message, context, pb.EvaluateTask, evaluate)

    @app.evaluate("preview")
    def _preview(message: Message, context: Context) -> Message:
        return serve(message, context, pb.UnlearnTask, preview)

    return app
