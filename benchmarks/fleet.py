"""A fleet of connected agents on one coordinator: idle, after a restart, and in campaigns.

A real `disinherit serve` on SQLite, and light agents in one other process (`fleet_agents.py`): a
TLS connection with a certificate of its own for each, the real messages, packets fetched.  Each
owner has one model; all of them inherit from that of the first.

connect    all agents connect, a hundred at a time
idle       nothing happens: memory and CPU of the coordinator for each agent
campaign   a class is forgotten in all models
restart    a second campaign; the coordinator is killed in the middle of it, and started again:
           until all agents are back, and until every model has taken the change, each once
halves     a third campaign in waves, with half of the agents away, which come back later

The agents compute on the same cores as the coordinator: their CPU is given, too.
"""

import asyncio
import hashlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from fleet_agents import Agents, certify, until
from load import cpu_seconds, memory, started
from load_clients import secret
from measuring import Claim, Figures, arguments, report
from pass_worker import LABELS, digest

from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut, Wave
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.support.ports import free_ports

_AGENTS = int(os.environ.get("DISINHERIT_BENCH_AGENTS", "10000"))
_IDLE_SECONDS = 20.0
_LONGEST = 900.0
_DONE = ("applied", "verified")


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = 12 if options.reduced else _AGENTS
    with tempfile.TemporaryDirectory() as folder:
        measured = Fleet(Path(folder), count, 1.0 if options.reduced else _IDLE_SECONDS)
        asyncio.run(measured.measure())
    title = f"{count} agents on one coordinator: seconds, and memory in MB"
    report(options, "fleet", title, measured.rows, measured.claims)


class Fleet:
    """One coordinator with agents.

    Args:
        folder: an empty folder.
        count: of agents.
        idle: seconds in which nothing happens.

    Attributes:
        rows: what was measured.
        claims: the figures that targets are about.
    """

    def __init__(self, folder: Path, count: int, idle: float) -> None:
        self._folder, self._count, self._idle = folder, count, idle
        self.rows: list[Figures] = []
        self.claims: list[Claim] = []
        self._names = [f"owner-{number}" for number in range(count)]
        self._models = {f"model-{number}": self._record(number) for number in range(count)}
        (folder / "tokens.toml").write_text(
            "".join(
                f'[[token]]\nname = "{who}"\nrole = "{who}"\n'
                f'sha256 = "{hashlib.sha256(secret(who).encode()).hexdigest()}"\n'
                for who in ("operator", "viewer")
            )
        )
        service, agents, enrol = free_ports(3)
        self._address, self._agents_port = f"127.0.0.1:{service}", agents
        (folder / "coordinator.toml").write_text(
            f'database = "c.db"\npackets = "packets"\ntokens = "tokens.toml"\napproval = false\n'
            f'listen = "127.0.0.1:{service}"\n[agents]\nauthority = "authority"\n'
            f'hosts = ["127.0.0.1"]\nlisten = "127.0.0.1:{agents}"\n'
            f'enrol_listen = "127.0.0.1:{enrol}"\nagents = {count}\n'
        )

    @staticmethod
    def _record(number: int) -> ModelRecord:
        return ModelRecord(
            id=f"model-{number}",
            owner=f"owner-{number}",
            architecture="0a" * 32,
            labels=LABELS,
            digest=digest(f"model-{number}"),
            created_us=number + 1,
            provenance=Provenance("none", dict.fromkeys(LABELS, 10)),
        )

    async def measure(self) -> None:
        """Do all of it."""
        authority = CertificateAuthority.open(self._folder / "authority")
        keys = {owner: certify(authority, owner) for owner in self._names}
        where = f"127.0.0.1:{self._agents_port}"
        agents = Agents(where, authority.certificate, keys, self._models)
        with ExitStack() as running:
            process = running.enter_context(self._serving())
            await asyncio.to_thread(self._register)
            fresh = memory(process)
            with Spent(process) as spent:
                took = await agents.start(self._names)
            self._row("connect", spent, seconds=took, each="connections a second")
            with Spent(process) as spent:
                await asyncio.sleep(self._idle)
            each = (memory(process) - fresh) / self._count
            self._row("idle", spent, seconds=self._idle)
            self.rows[-1]["kB an agent"] = round(1024 * each, 1)
            busy = 1000 * spent.coordinator / self._idle / self._count
            self.rows[-1]["CPU ms a second and agent"] = round(busy, 4)
            await self._campaign(process, "first", LABELS[3])
            await self._submit("second", LABELS[4])
            await until(lambda: self._done("second", self._count // 10), _LONGEST)
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
        with self._serving() as process:
            begun = time.monotonic()
            with Spent(process) as spent:
                back = await until(lambda: agents.are_back(self._count, killed), _LONGEST)
                self._row("restart: all are back", spent, seconds=back)
                done = await until(lambda: self._done("second", self._count), _LONGEST)
            took = time.monotonic() - begun
            self._row("restart: all have it", spent, seconds=took if done < _LONGEST else done)
            await self._halves(process, agents)
            await asyncio.to_thread(self._check)
            await agents.stop(self._names)
        self.claims.append(
            Claim(12, f"s until {self._count} agents are back after a restart", back, at_most=60)
        )

    async def _campaign(self, process: Any, id: str, name: str) -> None:
        with Spent(process) as spent:
            begun = time.monotonic()
            await self._submit(id, name)
            await until(lambda: self._done(id, self._count), _LONGEST)
            applied = time.monotonic() - begun
        self._row("campaign: all applied", spent, seconds=applied, each="models a second")
        await until(lambda: self._ended(id), _LONGEST)
        self._row("campaign: all verified", spent, seconds=time.monotonic() - begun)
        rate = self._count / applied
        what = f"models a second, {self._count} owners x 1"
        self.claims.append(Claim(12, what, rate, at_least=1000))

    async def _halves(self, process: Any, agents: Agents) -> None:
        away = self._names[1::2]
        await agents.stop(away)
        waves = RollOut(canaries=[self._names[0]], waves=[Wave(fraction=0.1)], min_success=0.4)
        with Spent(process) as spent:
            begun = time.monotonic()
            await self._submit("third", LABELS[5], waves)
            await until(lambda: self._done("third", self._count - len(away)), _LONGEST)
            half = time.monotonic() - begun
            self._row("halves: those that are there", spent, seconds=half)
            back = await agents.start(away)
            await until(lambda: self._ended("third"), _LONGEST)
            took = time.monotonic() - begun - half
        self._row("halves: the others, from away to verified", spent, seconds=took)
        self.rows[-1]["of that, connecting"] = round(back, 1)

    def _row(self, what: str, spent: "Spent", seconds: float, each: str = "") -> None:
        now = spent.now()
        row: Figures = {"what": what, "agents": self._count, "seconds": round(seconds, 1)}
        if each:
            row["a second"] = round(self._count / seconds, 1)
        row |= {"CPU of the coordinator": now[0], "CPU of the agents": now[1], "MB": now[2]}
        self.rows.append(row)
        print(row, file=sys.stderr, flush=True)

    def _serving(self) -> Any:
        command = [str(Path(sys.executable).with_name("disinherit")), "serve", "--plaintext"]
        return Serving(
            [*command, "--config", str(self._folder / "coordinator.toml")], self._folder / "log"
        )

    def _stub(self, channel: Any) -> Any:
        return CoordinatorStub(channel)

    def _register(self) -> None:
        messages = []
        for record in self._models.values():
            one = pb.RegisterModelRequest(record=record_to_proto(record))
            if record.id != "model-0":
                one.parents.add(
                    parent="model-0",
                    child=record.id,
                    kind=graph_pb2.INHERITANCE_KIND_TRANSFER,
                    weight=1,
                )
            messages.append(one)
        parts = (
            pb.RegisterModelsRequest(models=messages[start : start + 200])
            for start in range(0, len(messages), 200)
        )
        with grpc.insecure_channel(self._address) as channel:
            for answer in self._stub(channel).RegisterModels(parts, metadata=_as("operator")):
                for one in answer.models:
                    if one.refused:
                        sys.exit(f"Expected no refused version, but {one.refused}")

    async def _submit(self, id: str, name: str, roll_out: RollOut | None = None) -> None:
        request = Request(id=id, reason="fleet", forget={"model-0": [name]}, roll_out=roll_out)
        message = pb.SubmitRequestRequest(request=request.to_proto())
        async with grpc.aio.insecure_channel(self._address) as channel:
            await self._stub(channel).SubmitRequest(message, metadata=_as("operator"))

    async def _status(self, id: str) -> pb.RequestStatus:
        async with grpc.aio.insecure_channel(self._address) as channel:
            message = pb.GetRequestRequest(id=id)
            found: pb.RequestStatus = await self._stub(channel).GetRequest(
                message, metadata=_as("viewer"), wait_for_ready=True
            )
            return found

    async def _done(self, id: str, count: int) -> bool:
        status = await self._status(id)
        return sum(status.tasks[state] for state in _DONE) >= count

    async def _ended(self, id: str) -> bool:
        return (await self._status(id)).state == pb.CAMPAIGN_STATE_COMPLETE

    def _check(self) -> None:
        """Stop unless each model has taken each change once."""
        owned: Counter[str] = Counter()
        with grpc.insecure_channel(self._address) as channel:
            message, last = pb.ListModelsRequest(page_size=1000), set[str]()
            while True:
                answer = self._stub(channel).ListModels(message, metadata=_as("operator"))
                for model in answer.models:
                    owned[model.owner] += 1
                    if model.status == graph_pb2.MODEL_STATUS_ACTIVE:
                        last.add(model.id)
                message.page_token = answer.next_page_token
                if not message.page_token:
                    break
        if set(owned.values()) != {4} or len(last) != self._count:
            sys.exit(f"Expected 4 versions of each owner, but got {Counter(owned.values())}.")


class Spent:
    """CPU seconds of the coordinator and of this process, while a block runs or since.

    Args:
        process: the coordinator.

    Attributes:
        coordinator: its seconds, once the block has ended.
    """

    def __init__(self, process: Any) -> None:
        self._process = process
        self.coordinator = 0.0

    def __enter__(self) -> "Spent":
        self._begun = cpu_seconds(self._process), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.coordinator = cpu_seconds(self._process) - self._begun[0]

    def now(self) -> tuple[float, float, int]:
        """Return the seconds so far, of both, and the coordinator's memory in MB."""
        mine = time.process_time() - self._begun[1]
        theirs = cpu_seconds(self._process) - self._begun[0]
        return round(theirs, 2), round(mine, 2), round(memory(self._process))


class Serving:
    """A process that `started` runs, without its address."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._started = started(command, log)

    def __enter__(self) -> Any:
        return self._started.__enter__()[0]

    def __exit__(self, *error: Any) -> None:
        self._started.__exit__(*error)


def _as(who: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret(who)}"),)


if __name__ == "__main__":
    main()
