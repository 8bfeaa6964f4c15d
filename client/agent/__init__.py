"""`disinherit agent`: an owner of models on an edge device, reached over a stream that it holds.

It dials out and never listens.  What it does for a task is what any owner does
(`disinherit.client.handlers`), so it may be switched off at any moment: what it has applied is in
its ledger, what it has downloaded is on disk, and what it has not answered is asked for again.
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
