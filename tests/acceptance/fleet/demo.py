"""Two campaigns over a fleet of real processes, and in the simulation: digest by digest.

    python -m tests.acceptance.fleet.demo --out runs/fleet

Three owners are reached through agents over gRPC and mutual TLS, three through Flower's SuperNodes
with registered keys; five of the seven models are affected.  Samples of the root are forgotten by a
replay, and its change in all descendants; that is attested, verified, and rolled back.  Then a
class is forgotten.  All of it is asked by the command line.  The exit code is 1 if any model
differs from the simulation's.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from disinherit.cli.samples import digests_text
from disinherit.common.errors import DisinheritError
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.deploy.files import HOST, FleetFiles
from disinherit.server.reports.report import coverage_of
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.folder import open_store
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.scenario.settings import Settings
from tests.acceptance.fleet.files import write_files
from tests.acceptance.fleet.processes import Processes
from tests.acceptance.fleet.running import RunningFleet
from tests.acceptance.fleet.start import held_digests, make_reference
from tests.support.owner import named

AGENTS = ("owner-2", "owner-3", "owner-5")
"""The owners of r1, the root, r2 and r4."""

NODES = ("owner-0", "owner-1", "owner-4")
"""The owners of d and r6, of s, and of r3."""

ROOT_MODEL = "r1"

SETTINGS = Settings(
    dataset="mnist5k", forget={ROOT_MODEL: ("3",)}, clients=len(AGENTS) + len(NODES), device="cpu"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/fleet"), help="made anew")
    parser.add_argument("--database", help="URL of an empty one for the coordinator, not SQLite")
    parser.add_argument("--app", type=Path, default=Path("deploy/flower"), help="the Flower app")
    options = parser.parse_args(arguments)
    try:
        return _demo(options.out.absolute(), options.app.absolute(), options.database)
    except DisinheritError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _requests(run: Path) -> list[Request]:
    """Return samples of the root, by its change, and a class."""
    index = SETTINGS.scenario.owner_of(ROOT_MODEL, SETTINGS.clients)
    with SimulatedOwner(SETTINGS, index, run) as owner:
        ids = owner.sample_ids(owner.store.record(ROOT_MODEL))[::10]
        samples = named(owner.store.root, ids)
    method = Method(mechanism="delta", root_method="replay", repair_steps=0)
    by_change = Request(id="samples", samples={ROOT_MODEL: samples}, method=method)
    return [by_change, replace(SETTINGS.request(), id="class")]


def _demo(out: Path, app: Path, database: str | None) -> int:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print("the simulation: training, registering, forgetting", flush=True)
    requests: list[Request] = []

    def asked(run: Path) -> list[Request]:
        requests.extend(_requests(run))
        return requests

    reference = make_reference(SETTINGS, out, asked, lambda _: None)
    files = write_files(reference.start, out / "fleet", database, AGENTS, NODES)
    equal = True
    with Processes(out / "logs", {"FLWR_HOME": str(files.flower_home)}) as processes:
        fleet = RunningFleet(files, processes, app, AGENTS, NODES)
        behind = "a proxy" if fleet.proxied else "no proxy (nginx is not installed)"
        print(
            f"the fleet: coordinator, SuperLink behind {behind}, 3 SuperNodes, 3 agents", flush=True
        )
        fleet.start()
        for request in requests:
            _submit(processes, files, request, out)
            print(f"submitted {request.id}", flush=True)
            print(watch(processes, files, request.id), flush=True)
            with open_store(files.root, database) as store:
                _show_seconds(owner_seconds(store, request.id))
            held = held_digests(files.root, SETTINGS.clients)
            equal &= show_digests(reference.before, reference.come_to[request.id], held)
            _attest(processes, files, request.id, out)
            if request is not requests[-1]:
                roll_back(processes, files, request.id)
                held = held_digests(files.root, SETTINGS.clients)
                equal &= show_digests(reference.before, reference.before, held)
    print("every digest is the simulation's" if equal else "error: digests differ", flush=True)
    return 0 if equal else 1


def _submit(processes: Processes, files: FleetFiles, request: Request, out: Path) -> None:
    """Submit a request by the command line."""
    words = [f"--forget={name}@{m}" for m, names in request.forget.items() for name in names]
    for model, listed in request.samples.items():
        path = out / "erased.json"
        path.write_text(digests_text([model], listed))
        words += ["--samples", str(path), "--mechanism", "delta", "--root-method", "replay"]
        words += ["--repair-steps", "0"]
    command = ["disinherit", "request", "submit", "--id", request.id, *words]
    processes.run([*command, "--reason", "demonstration", *_connection(files)])


def _attest(processes: Processes, files: FleetFiles, request: str, out: Path) -> None:
    """Have a campaign attested, and verify that beside the log and the coordinator's keys."""
    log, keys, statement = (out / name for name in ("audit.jsonl", "keys.pem", f"{request}.json"))
    ask = _connection(files, "approver")
    processes.run(["disinherit", "audit", "attest", request, "--out", str(statement), *ask])
    processes.run(["disinherit", "audit", "export", "--out", str(log), *ask])
    processes.run(["disinherit", "audit", "keys", "--out", str(keys), *ask])
    check = ["--key", str(keys), "--attestation", str(statement)]
    processes.run(["disinherit", "audit", "verify", str(log), *check])
    print(f"{request} is attested, and the log agrees with it", flush=True)


def roll_back(processes: Processes, files: FleetFiles, request: str) -> None:
    """Have a campaign rolled back, and wait until it is."""
    command = ["disinherit", "request", "rollback", request, "--reason", "demonstration"]
    processes.run([*command, *_connection(files, "approver")])
    print(watch(processes, files, request), flush=True)


def watch(processes: Processes, files: FleetFiles, request: str, seconds: float = 300.0) -> str:
    """Watch a request until it has ended, and return what the command line printed."""
    command = ["disinherit", "request", "watch", request]
    return processes.run([*command, *_connection(files)], seconds)


def owner_seconds(store: CoordinatorStore, request: str) -> dict[str, float]:
    """Return owner -> seconds from submission until the last of its models was verified.

    Args:
        store: the coordinator's.
        request: id of a request.
    """
    submitted = store.campaign(request).created_us
    seconds: dict[str, float] = {}
    for model in coverage_of(store, request).models:
        taken = (model.updated_us - submitted) / 1e6
        seconds[model.owner] = max(taken, seconds.get(model.owner, 0.0))
    return seconds


def show_digests(
    before: Mapping[str, str], expected: Mapping[str, str], held: Mapping[str, str]
) -> bool:
    """Print what every model has come to beside the simulation's; return whether all is equal."""
    for model, wanted in sorted(expected.items()):
        got = held.get(model, "")
        what = "as before" if wanted == before[model] else "forgot"
        verdict = "equal" if got == wanted else f"differs: {got[:16] or 'none'}"
        print(f"{model:3} {what:10} {wanted[:16]}  {verdict}")
    return dict(held) == dict(expected)


def _show_seconds(seconds: Mapping[str, float]) -> None:
    for way, owners in (("gRPC agent", AGENTS), ("Flower SuperNode", NODES)):
        for owner in owners:
            taken = f"{seconds[owner]:6.2f} s" if owner in seconds else "nothing to forget"
            print(f"{owner}  {way:17} {taken}")


def _connection(files: FleetFiles, role: str = "operator") -> list[str]:
    server, token = f"{HOST}:{files.ports.service}", files.token_file(role).read_text().strip()
    return ["--server", server, "--token", token, "--ca", str(files.ca), "--format", "json"]


if __name__ == "__main__":
    sys.exit(main())
