"""Flower ClientApp of an owner: unpack the task, call its handler, pack the reply.

The messages are those of `disinherit.common.wire.messages`.

`app` is for nodes with a configured function that opens their models:
`flower-supernode ... --node-config 'factory="my_models:open_owner"'`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from disinherit.client.handlers import HANDLERS, Handler
from disinherit.client.owner.factory import load_function
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.common.errors import CampaignError, DisinheritError
from disinherit.common.wire.flower import pack, unpack
from disinherit.common.wire.messages import ACTIONS

OpenOwner = Callable[[Context], AbstractContextManager[Owner]]
"""Opens the owner of a Flower context for one message."""


def open_configured(context: Context) -> AbstractContextManager[Owner]:
    """Open the owner with the `factory` of the node's configuration.

    Args:
        context: context of a message, the argument of the function.

    Raises:
        InputError: if the function does not exist.
    """
    opened: AbstractContextManager[Owner] = load_function(
        str(context.node_config.get("factory", ""))
    )(context)
    return opened


def build_client_app(open_owner: OpenOwner = open_configured) -> ClientApp:
    """Return a ClientApp that serves the models of an owner.

    Args:
        open_owner: opens the owner for the Flower context of a message.

    Returns:
        An app that accepts further handlers.
    """
    app = ClientApp()
    kinds = {"query": app.query, "train": app.train, "evaluate": app.evaluate}
    for action, handler in HANDLERS.items():
        kind, name = action.split(".")
        kinds[kind](name)(_serving(open_owner, action, handler))
    return app


def _serving(
    open_owner: OpenOwner, action: str, handler: Handler
) -> Callable[[Message, Context], Message]:
    kind = ACTIONS[action].task

    def serve(message: Message, context: Context) -> Message:
        try:
            task = unpack(message.content, kind)
            with open_owner(context) as owner:
                return Message(pack(handler(owner, task)), reply_to=message)
        except Exception as error:  # including errors of the owner's code, which Flower would send
            if isinstance(error, DisinheritError) and not error.foreign:
                raise
            raise CampaignError(explain(error, f"do {action}")) from error

    return serve


app = build_client_app()
