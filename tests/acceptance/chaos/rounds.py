"""Rounds in this process: the federation is copied, something goes wrong, and all is checked."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from disinherit.common.errors import DisinheritError
from disinherit.common.wire.requests import Request
from disinherit.server.campaign.dry_pass import Say
from disinherit.server.transport.base import Answer, Ask
from tests.acceptance.chaos import backups, messages, troubles
from tests.acceptance.chaos.checks import violations
from tests.acceptance.chaos.federation import (
    REQUESTS,
    World,
    build,
    delta_requests,
    held_versions,
)
from tests.acceptance.chaos.killing import any_call, count_calls, writing_call
from tests.acceptance.chaos.liars import dishonest
from tests.acceptance.chaos.lies import HOSTILE, LYING
from tests.acceptance.chaos.messages import Unreliable
from tests.acceptance.chaos.obstacles import Full, small_disk
from tests.acceptance.chaos.postgres import Cluster, find_binaries, fresh_database
from tests.acceptance.chaos.tally import Tally
from tests.acceptance.chaos.troubles import Round, Trouble, on_the_line

ON_THE_LINE: Mapping[str, Trouble] = {
    "message lost": on_the_line(messages.lose_request),
    "answer lost": on_the_line(messages.lose_reply),
    "message duplicated": on_the_line(messages.duplicate),
    "message delayed and re-ordered": on_the_line(messages.delay),
    "Fisher information with a flipped bit": on_the_line(messages.damage_fisher),
    "message or answer cut off": on_the_line(messages.truncate),
    "message with any bit flipped, to a copy": on_the_line(messages.flip_any_bit),
}
"""Kinds of which there are many in a round."""

CLOCK = "clock set to and fro"
DISHONEST: Mapping[str, Trouble] = {
    "owner that refuses": dishonest({}),
    "owner that lies": dishonest(LYING),
    "oversized or hostile field": dishonest(HOSTILE),
}
"""Kinds of which one owner has many in a round."""

KINDS: Mapping[str, Trouble] = {
    **ON_THE_LINE,
    "coordinator killed at any call": troubles.kill_coordinator,
    "owner killed while it writes": troubles.kill_owner,
    "disk full, of coordinator and owners": troubles.fill_disk,
    "SQLite locked": troubles.lock_database,
    "SQLite gone": troubles.remove_database,
    CLOCK: troubles.set_clock,
    "coordinator's database put back from a copy": backups.put_database_back,
    "owner's folder put back from a copy": backups.put_owner_back,
    "signing key lost or revoked": troubles.change_signing_key,
    **DISHONEST,
}
"""Kind -> what it does."""

LONG = "SQLite locked for longer than anybody waits"
POSTGRESQL = "PostgreSQL gone"


CLASSES, CHANGES = "classes", "changes of roots"
"""What rounds forget: classes, by Fisher information, or samples, by the changes of roots."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of a round, and what they come to without faults.

    Attributes:
        requests: one after the other.
        expected: version -> digest of all that there are in the end.
        calls: how many calls a pass makes, and how many that write an apply makes.
    """

    requests: Sequence[Request]
    expected: Mapping[str, str]
    calls: Mapping[str, int]


class Rounds:
    """Carries out rounds on copies of one federation.

    Args:
        scratch: an empty folder, for the federation and its copies.
        tally: of what came of them.
        say: told what did not hold.

    Attributes:
        built: the federation, as all rounds find it.
        asked: what is asked for -> requests for it.
        tally: the same.
    """

    def __init__(self, scratch: Path, tally: Tally, say: Say) -> None:
        self._scratch = scratch
        self.tally = tally
        self._say = say
        self.built = scratch / "built"
        build(self.built)
        requests = {CLASSES: REQUESTS, CHANGES: delta_requests(self.built)}
        self.asked = {what: self._without_faults(given) for what, given in requests.items()}

    def carry_out(
        self, kind: str, trouble: Trouble, rounds: int, what: Sequence[str] = (CLASSES, CHANGES)
    ) -> None:
        """Make rounds of one kind.

        Args:
            kind: its name.
            trouble: what it does.
            rounds: how many.
            what: what they forget, in turn.
        """
        for number in range(rounds):
            name = f"{kind}, round {number}"
            random = Random(f"{self.tally.seed}, {name}")
            asked = self.asked[what[number % len(what)]]
            with self._world(asked.requests) as (world, full):
                self._round(kind, name, trouble, Round(world, random, asked.calls, full))

    def carry_out_on_postgres(self, rounds: int) -> bool:
        """Make rounds in which PostgreSQL goes away.

        Args:
            rounds: how many.

        Returns:
            Whether it is installed.
        """
        binaries = find_binaries()
        if binaries is None:
            return False
        with tempfile.TemporaryDirectory(prefix="disinherit-chaos-") as folder:
            Path(folder).chmod(0o755)
            cluster = Cluster(binaries, Path(folder))
            cluster.start()
            try:
                for number in range(rounds):
                    name = f"{POSTGRESQL}, round {number}"
                    random = Random(f"{self.tally.seed}, {name}")
                    url = fresh_database(cluster.url, f"round{number}")
                    asked = self.asked[(CLASSES, CHANGES)[number % 2]]
                    with self._world(asked.requests, url) as (world, full):
                        round = Round(world, random, asked.calls, full, cluster)
                        self._round(POSTGRESQL, name, troubles.stop_server, round)
            finally:
                cluster.stop()
        return True

    def find_violations(self, world: World) -> list[str]:
        """Return what does not hold, of both campaigns, once they have recovered.

        Args:
            world: where they were carried out.

        Raises:
            DisinheritError: if something is so damaged that it cannot be looked at.
        """
        (asked,) = (one for one in self.asked.values() if one.requests == world.requests)
        with world.open_store() as store:
            ids = [request.id for request in world.requests]
            return list(violations(world.folder, store, ids, asked.expected))

    def _round(self, kind: str, name: str, trouble: Trouble, round: Round) -> None:
        found = round.found
        try:
            with round.clock:
                for request in round.world.requests:
                    round.world.submit(request)
                    trouble(round, request.id)
                    round.world.recover(request.id)
                for finish in round.last:
                    finish()
            found += self.find_violations(round.world)
        except DisinheritError as error:
            found.append(str(error))
        for one in found:
            self._say(f"{name}: {one}")
        self.tally.add(kind, round.injected, (f"{name}: {one}" for one in found))

    @contextmanager
    def _world(
        self, requests: Sequence[Request], database: str | None = None
    ) -> Iterator[tuple[World, Full]]:
        disk = self._scratch / "disk"
        with small_disk(disk) as full:
            yield World(self.built, disk / "world", database, requests), full
        shutil.rmtree(disk)

    def _without_faults(self, requests: Sequence[Request]) -> Asked:
        """Carry out both campaigns in processes of their own, and count the calls they make."""
        note = self._scratch / "note"
        calls = {"pass": 0, "apply": 0}

        def counted(line: Unreliable, ask: Ask) -> Answer:
            made = count_calls(lambda: line.deliver(ask), writing_call, note)
            calls["apply"] = max(made, calls["apply"])
            return line.deliver(ask)

        with self._world(requests) as (world, _):
            first, second = requests
            world.submit(first)
            transport = world.transport
            calls["pass"] = count_calls(lambda: world.live(first.id, transport), any_call, note)
            world.submit(second)
            world.live(second.id, Unreliable(world, counted, Random(0), 1.0, world.folder))
            return Asked(requests, held_versions(world.folder), calls)
