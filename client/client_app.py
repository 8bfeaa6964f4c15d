"""The Flower ClientApp of an owner: unpack, call the handler, pack.

Messages: those of `disinherit.common.wire.messages`.

`app` is for nodes whose configuration names the function that opens their models:
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
"""Opens the owner that a Flower context belongs to, for the time of one message."""


def open_configured(context: Context) -> AbstractContextManager[Owner]:
    """Open the owner by the function that the node's configuration names.

    Args:
        context: of a message; it is what the function gets.

    Raises:
        InputError: if there is no such function.
    """
    opened: AbstractContextManager[Owner] = load_function(
        str(context.node_config.get("factory", ""))
    )(context)
    return opened


def build_client_app(open_owner: OpenOwner = open_configured) -> ClientApp:
    """Return a ClientApp that serves the models of an owner.

    Args:
        open_owner: gives the owner for a message's Flower context.

    Returns:
        An app to which further handlers may be added.
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
        except Exception as error:  # also what the owner's own code raises, of which Flower tells
            if isinstance(error, DisinheritError) and not error.foreign:
                raise
            raise CampaignError(explain(error, f"do {action}")) from error

    return serve


app = build_client_app()
