"""SIGKILL of every kind of process in the middle of a campaign over real ones: it resumes."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.acceptance.chaos.campaigns import (
    AT_AGENTS,
    EVERYWHERE,
    FLOODS,
    KILLS,
    Planned,
    carry_out,
    plan_campaigns,
)
from tests.acceptance.chaos.federation import build, make_request
from tests.acceptance.chaos.tally import Tally


@pytest.mark.slow
def test_floods_and_a_key_that_is_revoked_hold_up_no_campaign(tmp_path: Path) -> None:
    """Unfinished calls, idle streams, silent connections; another key enrols for the agent."""
    blows = {**FLOODS, "agent's key revoked": AT_AGENTS["agent's key revoked"]}
    tally = _tally_of(tmp_path, Planned(make_request("flooded", "r6", "3"), tuple(blows.items())))
    assert tally.failures == []
    assert {kind: line.recovered for kind, line in tally.lines.items()} == {
        f"fleet: {kind}": 1 for kind in blows
    }


@pytest.mark.slow
def test_whatever_is_killed_every_model_is_dampened_exactly_once(
    tmp_path: Path, database: str | None
) -> None:
    """Coordinator, ServerApp, SuperNode and agent; digests are those of a run without faults."""
    campaign = Planned(make_request("killed", "r1", "3"), tuple(KILLS.items()))
    tally = _tally_of(tmp_path, campaign, database)
    assert tally.failures == []
    assert {kind: line.recovered for kind, line in tally.lines.items()} == {
        f"fleet: {kind}": 1 for kind in KILLS
    }


def _tally_of(folder: Path, campaign: Planned, database: str | None = None) -> Tally:
    """Carry out one campaign with its faults over a fleet."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the fleet's processes: more would split sums in other ways
    tally = Tally(3)
    try:
        build(folder / "built")
        carry_out(folder / "built", folder, [campaign], tally, print, database)
    finally:
        torch.set_num_threads(threads)
    return tally


def test_every_kind_of_fault_is_planned_for_and_a_seed_repeats_the_plan() -> None:
    planned = plan_campaigns(5, 11, 3)
    assert [one.request for one in planned] == [one.request for one in plan_campaigns(5, 11, 3)]
    among = [one for one in planned if one.request.id.startswith("r6")]
    everywhere = [one for one in planned if one.request.id.startswith("r2")]
    assert Counter(name for one in among for name, _ in one.blows) == dict.fromkeys(AT_AGENTS, 4)
    assert Counter(name for one in everywhere for name, _ in one.blows) == dict.fromkeys(
        EVERYWHERE, 1
    )
