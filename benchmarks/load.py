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
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from load_clients import THIRDS, WEIGHTS, Clients, Size, Times, fill, mix, secret, submit_all
from measuring import Figures, arguments, report

from disinherit.common.audit.export import verify_lines
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.acceptance.chaos.postgres import cluster, find_binaries

FULL, REDUCED = Size(1000, 10, 50, 60.0, 40), Size(20, 3, 8, 3.0, 6)


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
        lines = stub.ExportAudit(pb.ExportAuditRequest(), metadata=metadata)
        problem = verify_lines([line.line + b"\n" for line in lines]).problem
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
