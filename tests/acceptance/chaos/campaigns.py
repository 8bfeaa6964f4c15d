"""Campaigns over real processes, each with several faults as it gets on, one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from disinherit.common.audit.export import read_header
from disinherit.common.errors import DisinheritError
from disinherit.common.wire.requests import Request
from disinherit.deploy.files import FleetFiles
from disinherit.deploy.programs import COORDINATOR, SUPERLINK
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.dry_pass import Say
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.folder import DATABASE, open_store
from tests.acceptance.chaos import floods
from tests.acceptance.chaos.checks import violations
from tests.acceptance.chaos.federation import World, held_versions, make_request
from tests.acceptance.chaos.fleet import AGENTS, NODES, SERVER_APP, ChaosFleet, running, wait_until
from tests.acceptance.chaos.obstacles import lock
from tests.acceptance.chaos.tally import Tally
from tests.acceptance.chaos.wire import Wire

Blow = Callable[[ChaosFleet, Random], bool]
"""Does something to a fleet, and returns whether there was something to do it to."""

_COMPLETE_SECONDS = 900.0
_PROGRESS_SECONDS = 90.0
_STEPS = 8
"""Entries of the audit log that a campaign over one owner makes, and a larger one begins with."""

_CLASSES = 7
"""That are asked for, some of them again; others are left, which a model can still tell apart."""

_PAUSE_SECONDS = 0.5
_NETWORK_SECONDS = 5.0


def _kill(*names: str) -> Blow:
    return lambda fleet, random: fleet.kill(random.choice(names))


def _network(change: Callable[[Wire], None], side: str) -> Blow:
    def blow(fleet: ChaosFleet, random: Random) -> bool:
        wire = fleet.agents_wire if side == "agents" else fleet.nodes_wire
        change(wire)
        time.sleep(random.uniform(0.2, _NETWORK_SECONDS))
        wire.heal()
        return True

    return blow


def _lock(fleet: ChaosFleet, random: Random) -> bool:
    lock(fleet.files.root / DATABASE, random.uniform(0.2, _NETWORK_SECONDS)).join()
    return True


def _revoke(fleet: ChaosFleet, random: Random) -> bool:
    """An agent's key is revoked, and some time later another one enrols in its place."""
    return fleet.change_key(AGENTS[0], lambda: time.sleep(random.uniform(0.0, _NETWORK_SECONDS)))


def _flood(burst: Callable[[FleetFiles, float], None]) -> Blow:
    def blow(fleet: ChaosFleet, random: Random) -> bool:
        burst(fleet.files, random.uniform(1.0, _NETWORK_SECONDS))
        return True

    return blow


FLOODS: Mapping[str, Blow] = {
    "flood of silent connections": _flood(floods.silent_connections),
    "flood of unfinished calls": _flood(floods.unfinished_calls),
    "flood of another agent's idle streams": _flood(
        lambda files, seconds: floods.idle_streams(files, AGENTS[1], seconds)
    ),
}
_NETWORK: Mapping[str, Callable[[Wire], None]] = {
    "cut": Wire.cut,
    "slowed": Wire.slow_down,
    "stalled": Wire.stall,
    "a flipped bit": Wire.damage,
}
KILLS: Mapping[str, Blow] = {
    "coordinator killed": _kill(COORDINATOR),
    "ServerApp killed": _kill(SERVER_APP),
    "SuperNode killed": _kill(*NODES),
    "agent killed": _kill(*AGENTS),
}
AT_AGENTS: Mapping[str, Blow] = {
    "coordinator killed": KILLS["coordinator killed"],
    "agent killed": _kill(AGENTS[0]),
    "database locked": _lock,
    "agent's key revoked": _revoke,
    **FLOODS,
    **{f"agents' network: {name}": _network(one, "agents") for name, one in _NETWORK.items()},
}
EVERYWHERE: Mapping[str, Blow] = {
    **KILLS,
    "SuperLink killed": _kill(SUPERLINK),
    **{f"nodes' network: {name}": _network(one, "nodes") for name, one in _NETWORK.items()},
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A campaign, and what is to happen in it.

    Attributes:
        request: what to forget.
        blows: with their names, in order.
    """

    request: Request
    blows: Sequence[tuple[str, Blow]]


def plan_campaigns(
    seed: int, among_agents: int, everywhere: int, by_change: Callable[[str, str], Request]
) -> list[Planned]:
    """Return campaigns in which each kind of fault is about equally often.

    The first one over each root forgets samples, before anything else changed it, so that a replay
    gives what training gives.  The others forget a class each, in any order.

    Args:
        seed: of their order.
        among_agents: number of campaigns over one agent's model.
        everywhere: number of campaigns over agents' and SuperNodes' models.
        by_change: returns a request for samples by its id and root.
    """
    random = Random(f"{seed}, campaigns")
    first, planned = [], []
    for root, count, blows, each in (
        ("r6", among_agents, AT_AGENTS, 4),
        ("r2", everywhere, EVERYWHERE, 3),
    ):
        drawn: list[str] = []
        for number in range(count):
            names: list[str] = []
            while len(names) < each:
                if not drawn:
                    drawn = random.sample(sorted(blows), len(blows))
                names.append(drawn.pop())
            request_id, struck = f"{root}-{number}", [(name, blows[name]) for name in names]
            if number:
                label = str(number % _CLASSES)
                planned.append(Planned(make_request(request_id, root, label), struck))
            else:
                first.append(Planned(by_change(request_id, root), struck))
    random.shuffle(planned)
    return first + planned


def carry_out(
    built: Path,
    scratch: Path,
    planned: Sequence[Planned],
    tally: Tally,
    say: Say,
    database: str | None = None,
    last: Callable[[FleetFiles, CoordinatorStore], object] = lambda files, store: None,
) -> None:
    """Carry out campaigns over a fleet, with their faults, and check each of them.

    Args:
        built: the federation.
        scratch: an empty folder.
        planned: the campaigns.
        tally: of what came of them.
        say: told what is happening.
        database: URL of an empty one for the coordinator; `None` for SQLite, as `_lock` wants it.
        last: what is done in the end, while the fleet is still running.

    Raises:
        DisinheritError: if the fleet does not come up, or does not end.
    """
    random = Random(f"{tally.seed}, fleet")
    expected = _without_faults(built, scratch / "without", planned)
    with running(built, scratch / "fleet", random, database) as fleet, ExitStack() as stack:
        say("the fleet is up: coordinator, SuperLink, 2 SuperNodes, 2 agents, ServerApp")
        store = stack.enter_context(open_store(fleet.files.root, database))
        for number, one in enumerate(planned, start=1):
            struck: list[str] = []
            started = time.monotonic()
            try:
                _campaign(fleet, store, one, random, struck)
                ids = [earlier.request.id for earlier in planned[:number]]
                found = list(violations(fleet.files.root, store, ids, expected[number - 1]))
            except DisinheritError as error:
                found = [str(error)]
            name = f"fleet, campaign {one.request.id}"
            say(f"{name}: {', '.join(struck)}: {time.monotonic() - started:.0f} s")
            for text in found:
                say(f"{name}: {text}")
            for kind in struck:
                tally.add(f"fleet: {kind}", 1, (f"{name}: {text}" for text in found))
            if found and not struck:
                tally.add("fleet: none", 0, (f"{name}: {text}" for text in found))
        last(fleet.files, store)


def _campaign(
    fleet: ChaosFleet, store: CoordinatorStore, one: Planned, random: Random, struck: list[str]
) -> None:
    Coordinator(store, DirectTransport({})).submit(one.request)
    begun = _entries(store)
    points = sorted(random.randrange(_STEPS) for _ in one.blows)
    for point, (kind, blow) in zip(points, one.blows, strict=True):
        _wait_for_progress(store, one.request.id, begun + point)
        time.sleep(random.uniform(0.0, _PAUSE_SECONDS))
        if blow(fleet, random):
            struck.append(kind)
    wait_until(
        lambda: store.campaign(one.request.id).state.ended,
        f"campaign {one.request.id} to end",
        _COMPLETE_SECONDS,
    )


def _wait_for_progress(store: CoordinatorStore, request_id: str, entries: int) -> None:
    """Wait until the log has so many entries, or the campaign has ended, or nothing happens."""
    deadline = time.monotonic() + _PROGRESS_SECONDS
    while _entries(store) < entries and time.monotonic() < deadline:
        if store.campaign(request_id).state.ended:
            return
        time.sleep(0.02)


def _entries(store: CoordinatorStore) -> int:
    return read_header(next(store.audit_lines())).entries


def _without_faults(built: Path, folder: Path, planned: Sequence[Planned]) -> list[dict[str, str]]:
    """Return what the owners hold after each of the campaigns, carried out in this process."""
    world = World(built, folder)
    expected = []
    for one in planned:
        world.submit(one.request)
        world.recover(one.request.id)
        expected.append(held_versions(folder))
    return expected
