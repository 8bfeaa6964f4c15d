"""`disinherit agent`: an owner of models on an edge device, reached over an outgoing stream.

It dials out and never listens.  It carries out tasks with the handlers of any owner
(`disinherit.client.handlers`), and may be switched off at any moment.  Applied tasks are in its
ledger, downloads are on disk, and unanswered tasks are sent again.
"""

from disinherit.client.agent.config import AgentConfig, read_config
from disinherit.client.agent.identity import Identity, enrol, load_identity

__all__ = [
    "AgentConfig",
    "Identity",
    "enrol",
    "load_identity",
    "read_config",
]
