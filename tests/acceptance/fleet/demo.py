"""One campaign over a fleet of real processes, and the same in the simulation: digest by digest.

    python -m tests.acceptance.fleet.demo --out runs/fleet

Three owners are reached through agents over gRPC and mutual TLS, three through Flower's SuperNodes
with registered keys; five of the seven models are affected.  The request is submitted and watched
by the command line.  The exit code is 1 if any model differs from the simulation's.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from disinherit.common.errors import DisinheritError
from disinherit.deploy.files import HOST, FleetFiles
from disinherit.server.reports.report import coverage_of
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.folder import open_store
from disinherit.simulations.scenario.settings import Settings
from tests.acceptance.fleet.files import write_files
from tests.acceptance.fleet.processes import Processes
from tests.acceptance.fleet.running import RunningFleet
from tests.acceptance.fleet.start import Reference, held_digests, make_reference

AGENTS = ("owner-2", "owner-3", "owner-5")
"""The owners of r1, the root, r2 and r4."""

NODES = ("owner-0", "owner-1", "owner-4")
"""The owners of d and r6, of s, and of r3."""

SETTINGS = Settings(
    dataset="mnist5k", forget={"r1": ("3",)}, clients=len(AGENTS) + len(NODES), device="cpu"
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


def _demo(out: Path, app: Path, database: str | None) -> int:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print("the simulation: training, registering, forgetting", flush=True)
    reference = make_reference(SETTINGS, out, lambda _: None)
    files = write_files(reference.start, out / "fleet", database, AGENTS, NODES)
    with Processes(out / "logs", {"FLWR_HOME": str(files.flower_home)}) as processes:
        fleet = RunningFleet(files, processes, app, AGENTS, NODES)
        behind = "a proxy" if fleet.proxied else "no proxy (nginx is not installed)"
        print(
            f"the fleet: coordinator, SuperLink behind {behind}, 3 SuperNodes, 3 agents", flush=True
        )
        fleet.start()
        request = submit(processes, files)
        print(f"submitted {request}", flush=True)
        print(watch(processes, files, request), flush=True)
        with open_store(files.root, database) as store:
            seconds = owner_seconds(store, request)
    _show_seconds(seconds)
    equal = show_digests(reference, held_digests(files.root, SETTINGS.clients))
    print("every digest is the simulation's" if equal else "error: digests differ", flush=True)
    return 0 if equal else 1


def submit(processes: Processes, files: FleetFiles) -> str:
    """Submit the request by the command line, and return its id."""
    forget = [f"--forget={name}@{m}" for m, names in SETTINGS.forget.items() for name in names]
    command = ["disinherit", "request", "submit", *forget, "--reason", "demonstration"]
    return str(json.loads(processes.run([*command, *_connection(files)]))["id"])


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


def show_digests(reference: Reference, held: Mapping[str, str]) -> bool:
    """Print what every model has come to beside the simulation's; return whether all is equal."""
    for model, expected in sorted(reference.digests.items()):
        got = held.get(model, "")
        what = "forgot" if model in reference.affected else "untouched"
        verdict = "equal" if got == expected else f"differs: {got[:16] or 'none'}"
        print(f"{model:3} {what:10} {expected[:16]}  {verdict}")
    return dict(held) == reference.digests


def _show_seconds(seconds: Mapping[str, float]) -> None:
    for way, owners in (("gRPC agent", AGENTS), ("Flower SuperNode", NODES)):
        for owner in owners:
            taken = f"{seconds[owner]:6.2f} s" if owner in seconds else "nothing to forget"
            print(f"{owner}  {way:17} {taken}")


def _connection(files: FleetFiles) -> list[str]:
    server = f"{HOST}:{files.ports.service}"
    return ["--server", server, "--token", files.token, "--ca", str(files.ca), "--format", "json"]


if __name__ == "__main__":
    sys.exit(main())
