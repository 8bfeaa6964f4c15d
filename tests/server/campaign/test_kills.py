"""A coordinator that is killed at any point: another one finishes, and nothing happens twice.

The process dies by SIGKILL, so nothing of it gets to clean up.  The points are enumerated: before
each message reaches its owner, and after the owner acted on it but before the answer is recorded.
The next message's first point is the one after the answer was recorded.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.transport.base import Answer, Ask, Transport
from tests.acceptance.chaos.forking import exit_code, fork
from tests.support.campaign import AFFECTED, MESSAGES, World, copy, make_request

LEASE_SECONDS = 0.2
POINTS = [(index, when) for index in range(len(MESSAGES)) for when in ("before", "after")]
END = (len(MESSAGES), "")


class DeadlyTransport:
    """Kills its process at one point."""

    def __init__(self, inner: Transport, index: int, when: str) -> None:
        self._inner = inner
        self._point = index, when
        self._sent = 0

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        for ask in asks:
            assert (ask.owner, ask.action) == MESSAGES[self._sent]
            self._die_at(self._sent, "before")
            (answer,) = self._inner.ask([ask], timeout)
            self._die_at(self._sent, "after")
            self._sent += 1
            yield answer
        # After the last message: its answer is recorded, and the pass not yet over.
        self._die_at(self._sent, "")

    def _die_at(self, index: int, when: str) -> None:
        if (index, when) == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(root: Path, database: str | None, index: int, when: str) -> None:
    """What the killed process does."""
    with World(root, database) as world:
        deadly = DeadlyTransport(world.transport.inner, index, when)
        Coordinator(world.store, deadly, lease_seconds=LEASE_SECONDS).run("q")


@pytest.fixture(scope="module")
def faultless(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Model -> digest of its successor when nothing goes wrong."""
    with copy(built, tmp_path_factory.mktemp("faultless") / "world") as world:
        world.coordinator.submit(make_request())
        world.coordinator.run("q")
        assert tuple(world.transport.actions()) == MESSAGES
        return digests(world)


def digests(world: World) -> dict[str, str]:
    """Model -> digest of its successor, as the coordinator knows it and as its owner holds it."""
    found = {}
    for model in AFFECTED:
        found[model] = world.store.graph().model(f"{model}~q").digest
        with world.owned(model) as store:
            assert store.record(f"{model}~q").digest == found[model]
    return found


@pytest.mark.parametrize(("index", "when"), [*POINTS, END])
def test_a_coordinator_killed_at_any_point_is_followed_by_one_that_finishes(
    built: Path,
    tmp_path: Path,
    database: str | None,
    faultless: dict[str, str],
    index: int,
    when: str,
) -> None:
    with copy(built, tmp_path / "world", database) as world:
        world.coordinator.submit(make_request())
    process = fork(lambda: run_and_die(world.root, database, index, when))
    assert exit_code(process) == -signal.SIGKILL

    with world.again() as after:
        acted_before = {
            owner
            for owner, action in MESSAGES[: index + (when == "after")]
            if action == "train.unlearn"
        }
        # It waits for the dead one's lease to run out.
        result = Coordinator(after.store, after.transport, patience=30.0).run("q")

        # What was answered is not asked again; what was not, is asked once.
        assert tuple(after.transport.actions()) == MESSAGES[index:]
        assert after.states() == dict.fromkeys(AFFECTED, TaskState.VERIFIED)
        assert after.store.campaign("q").state is CampaignState.COMPLETE
        # Each model is dampened exactly once: in the first life or in the second.
        owner_of = {model: after.store.graph().model(model).owner for model in AFFECTED}
        assert set(result.changed) == {m for m in AFFECTED if owner_of[m] not in acted_before}
        assert set(result.already_applied) == set(AFFECTED) - set(result.changed)
        assert digests(after) == faultless
        files = after.files()
        assert after.coordinator.run("q").outcome == "unchanged"
        assert after.files() == files
