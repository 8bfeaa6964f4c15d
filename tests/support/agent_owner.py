"""The models of an agent's owner, opened in the agent's own process.

Nothing of the server's is imported, so that an agent can be run where that is not installed.
"""

import threading

from disinherit.client.agent import AgentConfig
from disinherit.client.store.ledger import Commit, LedgerEntry
from tests.support.owner import PointsOwner


class HaltingOwner(PointsOwner):
    """Stops for ever before or after it applies, if a file in its folder says so."""

    def __enter__(self) -> "HaltingOwner":
        apply = self.store.apply

        def halting(application: Commit) -> LedgerEntry:
            self._halt("before")
            entry = apply(application)
            self._halt("after")
            return entry

        self.store.apply = halting  # type: ignore[method-assign]
        return self

    def _halt(self, when: str) -> None:
        if (self.store.root / f"halt-{when}").exists():
            (self.store.root / "halted").touch()
            threading.Event().wait()  # only SIGKILL ends this in time


def open_points(config: AgentConfig) -> PointsOwner:
    """Open the models of an agent's owner."""
    return HaltingOwner(config.state.parent / config.owner, config.owner)
