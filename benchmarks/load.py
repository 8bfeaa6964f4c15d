"""A coordinator under load: 1,000 owners with 10 versions each, 50 clients that never pause.

A real `disinherit serve` on loopback, first on SQLite, then on a PostgreSQL of its own:

register  every owner registers its versions with its own token; 20 owners each form a group in
          which a version inherits from its owner's last one and from that of a neighbour
mixed     50 clients call one after the other for 60 s, each as somebody who may: owners register
          and list, operators submit, pause and resume, approvers approve, viewers look

bare      the same clients call a gRPC server that does nothing but one read and one committed write
          a call, in the same database system
batches   2,000 more versions by one call of `RegisterModels`, 200 in a message
two       on PostgreSQL: the calls that only look, at one coordinator and at two

No owner is connected, so the campaigns that are approved stay open, and the coordinator drives them
all the while.  Counted are calls and those that failed, with any status; measured the time from the
call to its answer, the memory of the coordinator, and its CPU beside that of the clients.  In the
end every version that was acknowledged must be listed, and the audit log must verify.
"""

import hashlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import grpc
from load_clients import (
    LOOKS,
    THIRDS,
    WEIGHTS,
    WRITES,
    Clients,
    Size,
    Times,
    batches,
    call_bare,
    fill,
    mix,
    secret,
    submit_all,
)
from measuring import Claim, Figures, arguments, report

from disinherit.common.audit.export import verify_lines
from disinherit.common.audit.line_messages import lines_of
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.acceptance.chaos.postgres import cluster, find_binaries

FULL, REDUCED = Size(1000, 10, 50, 30.0, 40), Size(20, 3, 8, 3.0, 6)
_BARE_SECONDS = 1 / 3
"""Part of the time for which the bare server is called."""

_MORE, _EACH = 2000, 200
"""Versions of the batches, and those of a message."""


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    size = REDUCED if options.reduced else FULL
    rows, claims = measure(size, None, "sqlite")
    if not options.reduced:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            Path(folder).chmod(0o755)
            binaries = find_binaries()
            if binaries is None:
                sys.exit("Expected PostgreSQL to be installed, but there is no initdb.")
            url = stack.enter_context(cluster(binaries, Path(folder), durable=True))
            found = measure(size, url, "postgresql")
            rows, claims = rows + found[0], claims + found[1]
    title = (
        f"{size.owners} owners with {size.versions} versions each, {size.clients} clients that "
        f"never pause, {size.seconds:g} s: milliseconds"
    )
    report(options, "load", title, rows, claims)
    if any(row.get("errors") for row in rows):
        sys.exit("Expected no call to fail, but some did.")


def measure(size: Size, database: str | None, name: str) -> tuple[list[Figures], list[Claim]]:
    """Serve an empty database, load it, and return the figures and what they are held against."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), size, database) as served:
        process, address = served
        clients = Clients(address, size)
        fresh = memory(process)
        clients.run(lambda number, stub: fill(clients, number, stub))
        submit_all(clients)
        used, mixed = [memory(process)], 0.0
        cpu, mine = cpu_seconds(process), time.process_time()
        for _ in range(THIRDS):
            mixed += clients.run(lambda number, stub: mix(clients, number, stub))
            used.append(memory(process))
        cpu, peak = cpu_seconds(process) - cpu, memory(process, "VmHWM")
        mine = time.process_time() - mine
        rows = [row(kind, clients.times[kind]) for kind in ("register", *WEIGHTS)]
        waits = [second for kind in WRITES for second in clients.times[kind].seconds]
        more = batches_of(clients)
        check(clients)
        two = None
        if database is not None:
            second = Path(folder) / "second"
            second.mkdir()
            with serving(second, size, database) as (_, other):
                two = look(clients, (address,)), look(clients, (address, other))
        bare = measure_bare(size, database or str(Path(folder) / "bare.db"))
    calls = sum(one["calls"] for one in rows[1:])
    total = {
        "call": "mixed, all",
        "calls": calls,
        "errors": sum(one["errors"] for one in rows[1:]),
        "a second": round(calls / mixed, 1),
        "of a core": round(cpu / mixed, 2),
        "CPU ms a call": round(1000 * cpu / calls, 2),
        "of the clients": round(1000 * mine / calls, 2),
        "MB fresh": round(fresh),
        "MB before": round(used[0]),
        **{f"MB after {i}/{THIRDS}": round(used[i]) for i in range(1, THIRDS + 1)},
        "MB peak": round(peak),
    }
    rows += [total, bare, {"call": "RegisterModels, versions", "calls": _MORE, "errors": 0, **more}]
    writes = row("", Times(waits))
    claims = [
        Claim(11, f"mixed calls a second, {name}", total["a second"], at_least=600),
        Claim(
            11,
            f"bare server / mixed, calls a second, {name}",
            _ratio(bare, total, "a second"),
            at_most=2.5,
        ),
        Claim(
            11, f"mixed / bare server, CPU of a call, {name}", _ratio(total, bare, "CPU ms a call")
        ),
        Claim(11, f"ms that half of the writes wait, {name}", writes["p50"], at_most=150),
        Claim(
            11, f"ms that 1 % of the writes wait longer than, {name}", writes["p99"], at_most=750
        ),
    ]
    if two is not None:
        rows += [
            {"call": f"looks, {what}", "a second": round(rate, 1)}
            for what, rate in zip(("one coordinator", "two coordinators"), two, strict=True)
        ]
        claims.append(
            Claim(11, "looks a second, two coordinators / one", two[1] / two[0], at_least=1.6)
        )
    return [{"database": name} | one for one in rows], claims


def _ratio(one: Figures, other: Figures, what: str) -> float:
    return float(round(one[what] / other[what], 2))


def look(clients: Clients, addresses: Sequence[str]) -> float:
    """Return how many calls a second that only look are answered."""
    before = sum(len(clients.times[kind].seconds) for kind in LOOKS)
    work = partial(mix, clients, only=LOOKS)
    seconds = clients.run(work, addresses)
    return (sum(len(clients.times[kind].seconds) for kind in LOOKS) - before) / seconds


def batches_of(clients: Clients) -> Figures:
    """Register versions in batches, and return how many a second."""
    with grpc.insecure_channel(clients.address) as channel:
        return {
            "a second": round(_MORE / batches(clients, CoordinatorStub(channel), _MORE, _EACH), 1)
        }


def measure_bare(size: Size, database: str) -> Figures:
    """Return the figures of a server that does next to nothing, called by as many clients."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name("bare_server.py")), database]
        with started(command, Path(folder) / "log") as (process, address):
            each = [Times() for _ in range(size.clients)]
            threads = [
                threading.Thread(
                    target=call_bare, args=(address, one, size.seconds * _BARE_SECONDS)
                )
                for one in each
            ]
            cpu, begun = cpu_seconds(process), time.perf_counter()
            mine = time.process_time()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took, cpu = time.perf_counter() - begun, cpu_seconds(process) - cpu
            mine = time.process_time() - mine
    figures = row("bare server", Times([second for one in each for second in one.seconds]))
    return figures | {
        "a second": round(figures["calls"] / took, 1),
        "of a core": round(cpu / took, 2),
        "CPU ms a call": round(1000 * cpu / figures["calls"], 2),
        "of the clients": round(1000 * mine / figures["calls"], 2),
    }


def check(clients: Clients) -> None:
    """Stop unless everything that was acknowledged is there, and the log is sound."""
    metadata = (("authorization", f"Bearer {secret('operator')}"),)
    with grpc.insecure_channel(clients.address) as channel:
        stub = CoordinatorStub(channel)
        message, listed = pb.ListModelsRequest(page_size=1000), set[str]()
        while True:
            answer = stub.ListModels(message, metadata=metadata)
            listed.update(model.id for model in answer.models)
            message.page_token = answer.next_page_token
            if not message.page_token:
                break
        lines = lines_of(stub.ExportAudit(pb.ExportAuditRequest(several=True), metadata=metadata))
        problem = verify_lines([line + b"\n" for line in lines]).problem
    if problem is not None or not clients.acknowledged <= listed:
        missing = len(clients.acknowledged - listed)
        sys.exit(f"Expected all that was acknowledged, but {missing} are missing, {problem}.")


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
    with started(command, folder / "log") as served:
        yield served


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a service and yield its process and address; stop exactly it."""
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
