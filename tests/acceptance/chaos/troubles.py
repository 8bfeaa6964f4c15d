"""The kinds of faults: each makes passes over a campaign and has something go wrong in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from disinherit.common.errors import DisinheritError, StoreError
from disinherit.server.store.database import Database
from disinherit.server.store.signing import find_keys, revoke_key
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.simulations.run.folder import DATABASE
from tests.acceptance.chaos import messages
from tests.acceptance.chaos.clocks import SetClock
from tests.acceptance.chaos.federation import LEASE_SECONDS, World, owner_folder
from tests.acceptance.chaos.killing import any_call, kill_at, writing_call
from tests.acceptance.chaos.messages import Unreliable
from tests.acceptance.chaos.obstacles import Full, lock, moved_away
from tests.acceptance.chaos.postgres import Cluster

MESSAGES = 9
"""Of a campaign without faults."""

_FREE_BYTES = 2**15
"""Less than a pass writes."""

_LOCKED_SECONDS = 0.3


@dataclass(slots=True)
class Round:
    """Two campaigns with faults of one kind.

    Attributes:
        world: where they are carried out.
        random: whatever is random in it.
        calls: how many calls a pass makes, and how many that write an apply makes.
        full: makes the disk full.
        cluster: where the database is; `None` for SQLite.
        injected: how many faults there were.
        last: what is done once both campaigns have recovered.
        found: what did not hold while something was wrong.
        clock: of this process.
    """

    world: World
    random: Random
    calls: Mapping[str, int]
    full: Full
    cluster: Cluster | None = None
    injected: int = 0
    last: list[Callable[[], object]] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    clock: SetClock = field(default_factory=SetClock)

    def attempt(self, request_id: str, transport: Transport) -> None:
        """Make a pass that may fail."""
        with suppress(DisinheritError):
            self.world.live(request_id, transport)


Trouble = Callable[[Round, str], None]
"""Injects faults into the campaign of a request."""


@dataclass(slots=True)
class Meanwhile:
    """A transport on which something happens before one of the messages."""

    inner: Transport
    number: int
    happens: Callable[[], object]

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Yield exactly one answer for each message."""
        for ask in asks:
            if self.number == 0:
                self.happens()
            self.number -= 1
            yield from self.inner.ask([ask], timeout)


def on_the_line(fault: messages.Fault) -> Trouble:
    """Return what lets something happen to about a third of the messages of three passes."""

    def trouble(round: Round, request_id: str) -> None:
        scratch = round.world.folder.with_name("copied")
        line = Unreliable(round.world, fault, round.random, 0.35, scratch)
        for _ in range(3):
            round.attempt(request_id, line)
        round.injected += line.injected
        round.last.append(lambda: line.deliver_kept(1.0))

    return trouble


def kill_coordinator(round: Round, request_id: str) -> None:
    """Kill the coordinator at any call of a pass, with whatever runs in its process."""
    number = round.random.randint(1, round.calls["pass"])
    pass_over = round.world
    round.injected += kill_at(
        lambda: pass_over.live(request_id, pass_over.transport), any_call, number
    )


def kill_owner(round: Round, request_id: str) -> None:
    """Kill an owner at any call that changes a file, while it answers a message."""
    calls, world = round.calls["apply"], round.world

    def die(line: Unreliable, ask: Ask) -> Answer:
        number = line.random.randint(1, calls)
        if not kill_at(lambda: line.deliver(ask), writing_call, number):
            line.injected -= 1  # it had ended before
        return messages.silence(ask)

    line = Unreliable(world, die, round.random, 0.6, world.folder)
    for _ in range(2):
        round.attempt(request_id, line)
    round.injected += line.injected


def fill_disk(round: Round, request_id: str) -> None:
    """Have the disk full from one of the messages on, but for some bytes."""
    free = round.random.randrange(_FREE_BYTES)
    _for_the_rest_of_a_pass(round, request_id, lambda stack: stack.enter_context(round.full(free)))


def lock_database(round: Round, request_id: str) -> None:
    """Hold the write lock of the coordinator's database, or of an owner's index, for a moment."""
    path = round.random.choice([_database(round), _index(round)])
    seconds = round.random.uniform(0.05, _LOCKED_SECONDS)
    _for_the_rest_of_a_pass(
        round, request_id, lambda stack: stack.callback(lock(path, seconds).join)
    )


def lock_for_long(round: Round, request_id: str) -> None:
    """Hold the write lock of the coordinator's database longer than anybody waits for it."""
    _for_the_rest_of_a_pass(
        round, request_id, lambda stack: stack.callback(lock(_database(round), 35.0).join)
    )


def remove_database(round: Round, request_id: str) -> None:
    """Have the coordinator's database, or an owner's index, gone from one of the messages on."""
    path = round.random.choice([_database(round), _index(round)])
    _for_the_rest_of_a_pass(round, request_id, lambda stack: stack.enter_context(moved_away(path)))


def set_clock(round: Round, request_id: str) -> None:
    """Set the coordinator's clock to and fro between messages; it stays wrong for the recovery.

    A coordinator that had taken the lease by the wrong clock is dead; and whatever retention
    windows have passed by it, nothing is due to be destroyed.
    """
    scratch = round.world.folder.with_name("copied")
    line = Unreliable(round.world, _jump(round), round.random, 0.5, scratch)
    for _ in range(2):
        with suppress(DisinheritError), round.world.open_store() as store:
            store.acquire_lease(request_id, "dead", LEASE_SECONDS)
        round.attempt(request_id, line)
        with round.world.open_store() as store:
            if due := store.due_destructions():
                round.found.append(f"by a clock that is wrong {due} is to be destroyed")
    round.injected += line.injected


def _jump(round: Round) -> messages.Fault:
    def fault(line: Unreliable, ask: Ask) -> Answer:
        round.clock.jump(line.random)
        return line.deliver(ask)

    return fault


def change_signing_key(round: Round, request_id: str) -> None:
    """Have the signing key gone, or revoked, from one of the messages on.

    With one that was revoked nothing starts: a person removes its file, and another one is made.
    """
    world, revoked = round.world, round.random.random() < 0.5

    def change() -> None:
        if revoked:
            with closing(Database(_database(round))) as opened, opened.writing() as db:
                revoke_key(db, find_keys(db)[-1].key_id, "administrator")
        else:
            world.key.unlink()
        round.injected += 1

    before, number = round.injected, round.random.randrange(MESSAGES)
    round.attempt(request_id, Meanwhile(world.transport, number, change))
    if round.injected == before:  # the pass had ended before
        change()
    if not revoked:
        return
    try:
        world.live(request_id, world.transport)
    except StoreError:
        world.key.unlink()
    else:
        round.found.append("a coordinator started with a key that was revoked")


def stop_server(round: Round, request_id: str) -> None:
    """Have PostgreSQL crash before one of the messages, and be away for the rest of the pass."""
    cluster = round.cluster
    assert cluster is not None

    def stop(stack: ExitStack) -> None:
        cluster.stop()
        stack.callback(cluster.start)

    _for_the_rest_of_a_pass(round, request_id, stop)


def _for_the_rest_of_a_pass(
    round: Round, request_id: str, begin: Callable[[ExitStack], object]
) -> None:
    with ExitStack() as stack:

        def happens() -> None:
            begin(stack)
            round.injected += 1

        number = round.random.randrange(MESSAGES)
        round.attempt(request_id, Meanwhile(round.world.transport, number, happens))


def _database(round: Round) -> Path:
    return round.world.folder / DATABASE


def _index(round: Round) -> Path:
    owner = round.random.choice(sorted(round.world.owners))
    return owner_folder(round.world.folder, owner) / "index.db"
