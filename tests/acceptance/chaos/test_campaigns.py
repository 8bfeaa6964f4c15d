"""SIGKILL of every kind of process in the middle of a campaign over real ones: it resumes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from disinherit.cli.main import run
from disinherit.common.graph.records import ModelStatus
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SampleDigests
from disinherit.deploy.files import HOST, FleetFiles
from disinherit.server.store.store import CoordinatorStore
from tests.acceptance.chaos.campaigns import (
    AT_AGENTS,
    EVERYWHERE,
    FLOODS,
    KILLS,
    Planned,
    carry_out,
    plan_campaigns,
)
from tests.acceptance.chaos.federation import (
    build,
    held_versions,
    make_delta_request,
    make_request,
)
from tests.acceptance.chaos.tally import Tally


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path, as sockets need."""
    return tmp_path_factory.mktemp("fleet")


@pytest.mark.slow
def test_floods_and_a_key_that_is_revoked_hold_up_no_campaign(folder: Path) -> None:
    """Unfinished calls, idle streams, silent connections; another key enrols for the agent.

    Before them, samples of r2 are forgotten by its change, at agents and SuperNodes alike, with the
    digests of the same campaign in one process; in the end that is attested, and rolled back.
    """
    blows = {**FLOODS, "agent's key revoked": AT_AGENTS["agent's key revoked"]}
    flooded = Planned(make_request("flooded", "r6", "3"), tuple(blows.items()))
    held: list[Mapping[str, str]] = []

    def attest_and_roll_back(files: FleetFiles, store: CoordinatorStore) -> None:
        for request in ("change", "flooded"):
            check_attested(files, request, folder)
        for request in ("flooded", "change"):  # the latest first
            command(files, "request", "rollback", request, "--reason", "asked again")
            command(files, "request", "watch", request)
        used = [one for one in store.graph().models() if one.status is ModelStatus.ACTIVE]
        held.append({model.id: model.digest for model in used})

    tally = _tally_of(
        folder,
        lambda built: [Planned(make_delta_request(built, "change", "r2"), ()), flooded],
        last=attest_and_roll_back,
    )
    assert tally.failures == []
    assert {kind: line.recovered for kind, line in tally.lines.items()} == {
        f"fleet: {kind}": 1 for kind in blows
    }
    assert held == [held_versions(folder / "built")]


@pytest.mark.slow
def test_whatever_is_killed_every_model_is_dampened_exactly_once(
    folder: Path, database: str | None
) -> None:
    """Coordinator, ServerApp, SuperNode and agent; digests are those of a run without faults.

    With PostgreSQL it is the change of a root that goes to them, with SQLite Fisher information.
    """

    def plan(built: Path) -> list[Planned]:
        if database is None:
            request = make_request("killed", "r1", "3")
        else:
            request = make_delta_request(built, "killed", "r2")
        return [Planned(request, tuple(KILLS.items()))]

    tally = _tally_of(folder, plan, database)
    assert tally.failures == []
    assert {kind: line.recovered for kind, line in tally.lines.items()} == {
        f"fleet: {kind}": 1 for kind in KILLS
    }


def command(files: FleetFiles, *words: str) -> None:
    """Run a command of an approver, who may roll back and export."""
    server = ["--server", f"{HOST}:{files.ports.service}", "--ca", str(files.ca)]
    token = files.token_file("approver").read_text().strip()
    assert run([*words, *server, "--token", token]) == 0, words


def check_attested(files: FleetFiles, request: str, folder: Path) -> None:
    """Check that a campaign is attested, as the log and the coordinator's keys confirm."""
    log, keys, statement = (str(folder / name) for name in ("log.jsonl", "keys.pem", request))
    command(files, "audit", "attest", request, "--out", statement)
    command(files, "audit", "export", "--out", log)
    command(files, "audit", "keys", "--out", keys)
    assert run(["audit", "verify", log, "--key", keys, "--attestation", statement]) == 0


def _tally_of(
    folder: Path,
    plan: Callable[[Path], Sequence[Planned]],
    database: str | None = None,
    last: Callable[[FleetFiles, CoordinatorStore], object] = lambda files, store: None,
) -> Tally:
    """Carry out campaigns with their faults over a fleet; arguments as in `carry_out`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the fleet's processes: more would split sums in other ways
    tally = Tally(3)
    try:
        build(folder / "built")
        planned = plan(folder / "built")
        carry_out(folder / "built", folder, planned, tally, print, database, last)
    finally:
        torch.set_num_threads(threads)
    return tally


def test_every_kind_of_fault_is_planned_for_and_a_seed_repeats_the_plan() -> None:
    def by_change(request_id: str, root: str) -> Request:
        return Request(id=request_id, samples={root: SampleDigests("ab" * 16, ("cd" * 32,))})

    planned = plan_campaigns(5, 11, 3, by_change)
    again = plan_campaigns(5, 11, 3, by_change)
    assert [one.request for one in planned] == [one.request for one in again]
    assert [list(one.request.samples) for one in planned[:3]] == [["r6"], ["r2"], []]
    among = [one for one in planned if one.request.id.startswith("r6")]
    everywhere = [one for one in planned if one.request.id.startswith("r2")]
    assert Counter(name for one in among for name, _ in one.blows) == dict.fromkeys(AT_AGENTS, 4)
    assert Counter(name for one in everywhere for name, _ in one.blows) == dict.fromkeys(
        EVERYWHERE, 1
    )
