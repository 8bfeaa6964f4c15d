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
from tests.support.delta_world import DELTA_MESSAGES, copy_delta, delta_request

LEASE_SECONDS = 0.2
Messages = Sequence[tuple[str, str]]


def points(messages: Messages) -> list[tuple[int, str]]:
    """All points of a campaign with so many messages, and the one after the last."""
    between = [(index, when) for index in range(len(messages)) for when in ("before", "after")]
    return [*between, (len(messages), "")]


class DeadlyTransport:
    """Kills its process at one point."""

    def __init__(self, inner: Transport, messages: Messages, index: int, when: str) -> None:
        self._inner = inner
        self._messages = messages
        self._point = index, when
        self._sent = 0

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        for ask in asks:
            assert (ask.owner, ask.action) == self._messages[self._sent]
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


def run_and_die(world: World, messages: Messages, index: int, when: str) -> None:
    """What the killed process does."""
    with world.again() as own:
        deadly = DeadlyTransport(own.transport.inner, messages, index, when)
        Coordinator(own.store, deadly, lease_seconds=LEASE_SECONDS).run("q")


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


@pytest.mark.parametrize(("index", "when"), points(MESSAGES))
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
    check_followed(world, MESSAGES, faultless, index, when)


@pytest.fixture(scope="module")
def faultless_delta(built_delta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same of a campaign by changes of roots."""
    with copy_delta(built_delta, tmp_path_factory.mktemp("faultless") / "world") as world:
        world.coordinator.submit(delta_request(world))
        world.coordinator.run("q")
        assert tuple(world.transport.actions()) == DELTA_MESSAGES
        return digests(world)


@pytest.mark.parametrize(("index", "when"), points(DELTA_MESSAGES))
def test_so_is_one_of_a_campaign_by_changes_of_roots(
    built_delta: Path, tmp_path: Path, faultless_delta: dict[str, str], index: int, when: str
) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world))
    check_followed(world, DELTA_MESSAGES, faultless_delta, index, when)


def check_followed(
    world: World, messages: Messages, faultless: dict[str, str], index: int, when: str
) -> None:
    """Kill a coordinator at a point; another one finishes, and nothing happens twice."""
    process = fork(lambda: run_and_die(world, messages, index, when))
    assert exit_code(process) == -signal.SIGKILL

    with world.again() as after:
        acted_before = {
            owner
            for owner, action in messages[: index + (when == "after")]
            if action == "train.unlearn"
        }
        # It waits for the dead one's lease to run out.
        result = Coordinator(after.store, after.transport, patience=30.0).run("q")

        # What was answered is not asked again; what was not, is asked once.
        assert tuple(after.transport.actions()) == messages[index:]
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
