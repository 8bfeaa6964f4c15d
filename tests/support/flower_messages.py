"""Flower messages outside a run, for apps that are called directly.

Import it before anything of Flower: what Flower itself imports may warn.
"""

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.supercore.task_identity import TaskIdentity

__all__ = ["NODE", "ClientApp", "Context", "RecordDict", "call"]

# Messages are made outside a run here, where Flower would know them.
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

NODE = 42


def call(app: ClientApp, action: str, content: RecordDict, **node_config: Any) -> Message:
    """Let an app handle one message on a node with this configuration; return the reply."""
    message = Message(content, NODE, action, ttl=60.0)
    context = Context(
        run_id=1, node_id=NODE, node_config=node_config, state=RecordDict(), run_config={}
    )
    reply: Message = app(message, context)
    return reply
