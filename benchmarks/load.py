"""A coordinator under load: 1,000 owners with 10 versions each, 50 clients that never pause.

A real `disinherit serve` on loopback, first on SQLite, then on a PostgreSQL of its own:

register  every owner registers its versions with its own token; 20 owners each form a group in
          which a version inherits from its owner's last one and from that of a neighbour
mixed     50 clients call one after the other for 60 s, each as somebody who may: owners register
          and list, operators submit, pause and resume, approvers approve, viewers look

No owner is connected, so the campaigns that are approved stay open, and the coordinator drives them
all the while.  Counted are calls and those that failed, with any status; measured the time from the
call to its answer, and the memory of the coordinator.  In the end every version that was
acknowledged must be listed, and the audit log must verify.
"""

import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from measuring import Figures, arguments, report

from disinherit.common.audit.export import verify_lines
from disinherit.common.wire.requests import Request
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.acceptance.chaos.postgres import cluster, find_binaries

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "owl", "pig")
GROUP = 20
CALL_SECONDS = 30.0
THIRDS = 3
"""Parts of the time after which memory is looked at: what is kept for ever grows in each alike."""

WEIGHTS = {
    "ListModels, own": 20,
    "RegisterModel": 15,
    "GetRequest": 15,
    "GetCoverage": 10,
    "ListModels, all": 10,
    "ListRequests": 8,
    "PauseRequest": 4,
    "ResumeRequest": 4,
    "SubmitRequest": 4,
    "ApproveRequest": 4,
    "GetReport": 3,
    "ExportAudit, one": 2,
    "GetGraph": 1,
}
"""Call -> how often it is made, of a hundred."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    owners: int
    versions: int
    clients: int
    seconds: float
    requests: int


FULL, REDUCED = Size(1000, 10, 50, 60.0, 40), Size(20, 3, 8, 3.0, 6)


@dataclass
class Times:
    """What the calls of one kind took, in seconds, and how those that failed did."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class Clients:
    """Calls of many threads at one service.

    Args:
        address: where it listens.
        size: how large the run is.
    """

    def __init__(self, address: str, size: Size) -> None:
        self.address = address
        self.size = size
        self.times: dict[str, Times] = defaultdict(Times)
        self.acknowledged: set[str] = set()
        self.dice = [random.Random(number) for number in range(size.clients)]
        self.registered: Counter[int] = Counter()
        self._turn = threading.Lock()

    def run(self, work: Callable[[int, CoordinatorStub], None]) -> float:
        """Let every client do its work, each on a connection of its own; return the seconds."""

        def one(number: int) -> None:
            # Without this option, channels of one process share one connection.
            options = (("grpc.use_local_subchannel_pool", 1),)
            with grpc.insecure_channel(self.address, options) as channel:
                work(number, CoordinatorStub(channel))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(self.size.clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def call(self, kind: str, who: str, call: Any, message: Any, stream: bool = False) -> Any:
        """Make a call as somebody, and note how it went; return the answer or `None`."""
        metadata = [("authorization", f"Bearer {secret(who)}")]
        started, error, answer = time.perf_counter(), "", None
        try:
            answer = call(message, timeout=CALL_SECONDS, metadata=metadata)
            answer = list(answer) if stream else answer
        except grpc.RpcError as failed:
            error = f"{failed.code().name}: {failed.details()}"
        seconds = time.perf_counter() - started
        with self._turn:
            times = self.times[kind]
            times.seconds.append(seconds)
            if error:
                times.errors[error] += 1
        return answer

    def register(
        self, stub: CoordinatorStub, kind: str, owner: int, version: int, alone: bool = False
    ) -> bool:
        """Register one version as its owner; remember and return whether it was acknowledged."""
        message = registration(owner, version, alone)
        if self.call(kind, f"owner-{owner}", stub.RegisterModel, message) is None:
            return False
        with self._turn:
            self.acknowledged.add(message.record.id)
        return True


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    size = REDUCED if options.reduced else FULL
    rows = measure(size, None, "sqlite")
    if not options.reduced:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            Path(folder).chmod(0o755)
            binaries = find_binaries()
            if binaries is None:
                sys.exit("Expected PostgreSQL to be installed, but there is no initdb.")
            url = stack.enter_context(cluster(binaries, Path(folder), durable=True))
            rows += measure(size, url, "postgresql")
    title = (
        f"{size.owners} owners with {size.versions} versions each, {size.clients} clients that "
        f"never pause, {size.seconds:g} s: milliseconds"
    )
    report(options, "load", title, rows, ())
    if any(row["errors"] for row in rows):
        sys.exit("Expected no call to fail, but some did.")


def measure(size: Size, database: str | None, name: str) -> list[Figures]:
    """Serve an empty database, load it, and return the figures, those of all calls last."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), size, database) as served:
        process, address = served
        clients = Clients(address, size)
        fresh = memory(process)
        clients.run(lambda number, stub: fill(clients, number, stub))
        submit_all(clients)
        used, mixed = [memory(process)], 0.0
        cpu = cpu_seconds(process)
        for _ in range(THIRDS):
            mixed += clients.run(lambda number, stub: mix(clients, number, stub))
            used.append(memory(process))
        cpu, peak = cpu_seconds(process) - cpu, memory(process, "VmHWM")
        check(clients)
    rows = [row(kind, clients.times[kind]) for kind in ("register", *WEIGHTS)]
    calls = sum(one["calls"] for one in rows[1:])
    total = {
        "call": "mixed, all",
        "calls": calls,
        "errors": sum(one["errors"] for one in rows[1:]),
        "a second": round(calls / mixed, 1),
        "of a core": round(cpu / mixed, 2),
        "MB fresh": round(fresh),
        "MB before": round(used[0]),
        **{f"MB after {i}/{THIRDS}": round(used[i]) for i in range(1, THIRDS + 1)},
        "MB peak": round(peak),
    }
    return [{"database": name} | one for one in (*rows, total)]


def fill(clients: Clients, number: int, stub: CoordinatorStub) -> None:
    """Register the versions of this client's share of the groups, the oldest first."""
    size = clients.size
    for group in range(number, -(-size.owners // GROUP), size.clients):
        for version in range(size.versions):
            for owner in range(group * GROUP, min((group + 1) * GROUP, size.owners)):
                clients.register(stub, "register", owner, version)


def submit_all(clients: Clients) -> None:
    """Submit the requests that are asked about, and approve every other one."""
    with grpc.insecure_channel(clients.address) as channel:
        stub = CoordinatorStub(channel)
        for i in range(clients.size.requests):
            message = submission(f"q{i}", i, clients.size)
            clients.call("SubmitRequest", "operator", stub.SubmitRequest, message)
            if i % 2 == 0:
                control = pb.ControlRequest(id=f"q{i}")
                clients.call("ApproveRequest", "approver", stub.ApproveRequest, control)


def mix(clients: Clients, number: int, stub: CoordinatorStub) -> None:
    """Make calls of all kinds until a part of the time is over."""
    until = time.monotonic() + clients.size.seconds / THIRDS
    dice = clients.dice[number]
    kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
    size, token = clients.size, ""

    while time.monotonic() < until:
        (kind,) = dice.choices(kinds, weights)
        id = f"q{dice.randrange(size.requests)}"
        running = f"q{2 * dice.randrange(size.requests // 2)}"
        owner = dice.randrange(size.owners)
        if kind == "RegisterModel":
            # An owner of its own, so that versions come in order.
            owner = number % size.owners
            version = size.versions + clients.registered[number]
            clients.registered[number] += clients.register(stub, kind, owner, version, alone=True)
        elif kind == "ListModels, own":
            clients.call(kind, f"owner-{owner}", stub.ListModels, pb.ListModelsRequest())
        elif kind == "ListModels, all":
            message = pb.ListModelsRequest(page_size=100, page_token=token)
            answer = clients.call(kind, "viewer", stub.ListModels, message)
            token = answer.next_page_token if answer is not None else ""
        elif kind == "GetRequest":
            clients.call(kind, "viewer", stub.GetRequest, pb.GetRequestRequest(id=id))
        elif kind == "ListRequests":
            clients.call(kind, "viewer", stub.ListRequests, pb.ListRequestsRequest(page_size=20))
        elif kind == "GetCoverage":
            clients.call(kind, "viewer", stub.GetCoverage, pb.GetCoverageRequest(id=id))
        elif kind == "GetReport":
            clients.call(kind, "viewer", stub.GetReport, pb.GetReportRequest(id=id))
        elif kind == "ExportAudit, one":
            message = pb.ExportAuditRequest(request_id=id)
            clients.call(kind, "operator", stub.ExportAudit, message, stream=True)
        elif kind == "GetGraph":
            clients.call(kind, "viewer", stub.GetGraph, pb.GetGraphRequest(), True)
        elif kind == "SubmitRequest":  # some are new, most are repeated
            i = dice.randrange(2 * size.requests)
            message = submission(f"q{i}", i, size)
            clients.call(kind, "operator", stub.SubmitRequest, message)
        elif kind == "ApproveRequest":
            control = pb.ControlRequest(id=f"q{1 + 2 * dice.randrange(size.requests // 2)}")
            clients.call(kind, "approver", stub.ApproveRequest, control)
        elif kind == "PauseRequest":
            clients.call(kind, "operator", stub.PauseRequest, pb.ControlRequest(id=running))
        else:
            message = pb.ResumeRequestRequest(id=running)
            clients.call(kind, "operator", stub.ResumeRequest, message)


def check(clients: Clients) -> None:
    """Stop unless everything that was acknowledged is there, and the log is sound."""
    metadata = [("authorization", f"Bearer {secret('operator')}")]
    with grpc.insecure_channel(clients.address) as channel:
        stub = CoordinatorStub(channel)
        message, listed = pb.ListModelsRequest(page_size=1000), set()
        while True:
            answer = stub.ListModels(message, metadata=metadata)
            listed.update(model.id for model in answer.models)
            message.page_token = answer.next_page_token
            if not message.page_token:
                break
        lines = stub.ExportAudit(pb.ExportAuditRequest(), metadata=metadata)
        problem = verify_lines([line.line + b"\n" for line in lines]).problem
    if problem is not None or not clients.acknowledged <= listed:
        missing = len(clients.acknowledged - listed)
        sys.exit(f"Expected all that was acknowledged, but {missing} are missing, {problem}.")


def registration(owner: int, version: int, alone: bool) -> pb.RegisterModelRequest:
    """Return the registration of a version, with what it was derived from.

    Args:
        owner: whose.
        version: from 0.
        alone: whether only from the owner's own.
    """
    id, name = f"m{owner}.{version}", f"owner-{owner}"
    record = graph_pb2.ModelRecord(
        id=id,
        owner=name,
        architecture=hashlib.sha256(b"network").hexdigest(),
        labels=LABELS,
        digest=hashlib.sha256(id.encode()).hexdigest(),
        provenance={
            "dataset": f"data of {name}",
            "samples_per_class": dict.fromkeys(LABELS, 100),
        },
        fisher_digest=hashlib.sha256(f"Fisher of {id}".encode()).hexdigest(),
    )
    first = owner - owner % GROUP
    parents = [owner] if alone or version % 2 else [owner, first + (owner + 1) % GROUP]
    edges = [
        graph_pb2.Inheritance(
            parent=f"m{parent}.{version - 1}",
            child=id,
            kind="INHERITANCE_KIND_FEDERATED",
            weight=1 / len(parents),
        )
        for parent in parents
        if version
    ]
    return pb.RegisterModelRequest(record=record, parents=edges)


def submission(id: str, number: int, size: Size) -> pb.SubmitRequestRequest:
    """Return a request to forget a class where one owner's first version learnt it."""
    root = f"m{number * 7 % size.owners}.0"
    request = Request(id=id, reason="load", forget={root: [LABELS[number % 10]]})
    return pb.SubmitRequestRequest(request=request.to_proto())


def secret(who: str) -> str:
    """Return the token of somebody."""
    return f"secret-of-{who}"


@contextmanager
def serving(
    folder: Path, size: Size, database: str | None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `disinherit serve` and yield its process and address; stop exactly it."""
    roles = {role: role for role in ("viewer", "operator", "approver")}
    roles |= {f"owner-{i}": f"owner:owner-{i}" for i in range(size.owners)}
    (folder / "tokens.toml").write_text(
        "".join(
            f'[[token]]\nname = "{who}"\nrole = "{role}"\n'
            f'sha256 = "{hashlib.sha256(secret(who).encode()).hexdigest()}"\n'
            for who, role in roles.items()
        )
    )
    command = [str(Path(sys.executable).with_name("disinherit")), "serve", "--plaintext"]
    command += ["--database", database or str(folder / "coordinator.db")]
    command += ["--tokens", str(folder / "tokens.toml"), "--packets", str(folder / "packets")]
    command += ["--signing-key", str(folder / "signing.pem"), "--listen", "127.0.0.1:0"]
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, text=True, env=os.environ)
    try:
        yield process, f"127.0.0.1:{port(process, log)}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port(process: subprocess.Popen[str], log: Path) -> str:
    """Return where a service listens, once it says so."""
    for _ in range(600):
        for line in log.read_text().splitlines():
            if line.startswith("serving on port "):
                return line.rpartition(" ")[2]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"Expected a service that starts, but: {log.read_text()[-2000:]}")


def memory(process: subprocess.Popen[str], field: str = "VmRSS") -> float:
    """Return the memory of a process in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"Expected {field} of process {process.pid}, but it is not there.")


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Return the seconds for which a process has computed."""
    values = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def row(kind: str, times: Times) -> Figures:
    """Return the figures of one kind of call, in milliseconds."""
    if times.errors:
        print(kind, dict(times.errors.most_common(3)), file=sys.stderr)
    cuts = [1000 * second for second in sorted(times.seconds)]
    percentiles = statistics.quantiles(cuts, n=100, method="inclusive") if len(cuts) > 1 else cuts
    return {
        "call": kind,
        "calls": len(cuts),
        "errors": sum(times.errors.values()),
        "p50": round(percentiles[len(percentiles) // 2], 1) if cuts else None,
        "p99": round(percentiles[-1], 1) if cuts else None,
        "max": round(cuts[-1], 1) if cuts else None,
    }


if __name__ == "__main__":
    main()
