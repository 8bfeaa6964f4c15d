"""The system: the coordinator's release, database, key and tokens, and its address."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from disinherit.documents.words import as_time
from disinherit.ui.screens.screen import Page
from disinherit.ui.words import now
from disinherit.v1 import coordinator_pb2 as pb

SOON = timedelta(days=14)
"""How long before its end a token is shown as one to renew."""


def load(page: Page) -> Mapping[str, Any]:
    """Return how the coordinator and this dashboard are set up."""
    found = page.visitor.call(lambda stub: stub.GetSystem, pb.GetSystemRequest())
    return {
        "address": page.visitor.address,
        "release": found.release,
        "own_release": importlib.metadata.version("disinherit"),
        "started": as_time(found.started_us),
        "database": found.database,
        "revision": found.revision,
        "tls": found.tls,
        "client_certificates": found.client_certificates,
        "approval": found.approval,
        "serves_agents": found.serves_agents,
        "agents_online": found.agents_online,
        "key_id": found.key_id or None,
        "metrics": found.metrics_url or None,
        "tokens": [
            {
                "name": one.name,
                "role": one.role,
                "expires": as_time(one.expires_us),
                "expiry": _expiry(one.expires_us),
            }
            for one in found.tokens
        ],
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that says how the coordinator is."""
    return ("status",)


def _expiry(expires_us: int) -> str:
    """Return `expired`, `soon`, `later` or `never`."""
    if not expires_us:
        return "never"
    left = expires_us / 1e6 - now().timestamp()
    if left <= 0:
        return "expired"
    return "soon" if left < SOON.total_seconds() else "later"
