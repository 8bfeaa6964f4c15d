"""Faults at random points, a dozen instead of hundreds: `make chaos` is the rest."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from disinherit.common.errors import DisinheritError
from disinherit.simulations.chaos.federation import REQUESTS, World, make_request, owner_folder
from disinherit.simulations.chaos.rounds import KINDS, Rounds
from disinherit.simulations.chaos.tally import Tally
from disinherit.simulations.run_folder import DATABASE

SEED = 6


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Rounds(tmp_path_factory.mktemp("chaos"), Tally(SEED), print)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "kind",
    [
        "answer lost",
        "message delayed and re-ordered",
        "Fisher information with a flipped bit",
        "message with any bit flipped, to a copy",
        "coordinator killed at any call",
        "owner killed while it writes",
        "disk full, of coordinator and owners",
        "SQLite gone",
    ],
)
def test_campaigns_recover_from_it(rounds: Rounds, kind: str) -> None:
    rounds.tally = Tally(SEED)
    rounds.carry_out(kind, KINDS[kind], 1)
    assert rounds.tally.failures == []
    assert rounds.tally.injected > 0
    assert rounds.tally.lines[kind].recovered == rounds.tally.injected


@pytest.fixture(scope="module")
def finished(rounds: Rounds, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Both campaigns have been carried out, and nothing went wrong."""
    world = World(rounds.built, tmp_path_factory.mktemp("finished") / "world")
    for request in REQUESTS:
        world.submit(request)
        world.recover(request.id)
    assert rounds.find_violations(world) == []
    return world


@pytest.fixture
def world(finished: World, tmp_path: Path) -> World:
    return World(finished.folder, tmp_path / "world")


def test_a_model_that_was_dampened_once_more_is_found(rounds: Rounds, world: World) -> None:
    once_more = make_request("third", "r4", "3")
    world.submit(once_more)
    world.recover("third")
    found = rounds.find_violations(world)
    assert any(text.startswith("the owners hold r4~first~second~third") for text in found)
    assert any(text.startswith("the coordinator knows r4~first~second~third") for text in found)


def test_weights_that_are_not_what_they_were_are_found(rounds: Rounds, world: World) -> None:
    for path in (owner_folder(world.folder, "owner-3") / "objects").iterdir():
        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 1
        path.write_bytes(damaged)
    with pytest.raises(DisinheritError):
        rounds.find_violations(world)


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM audit WHERE sequence = 12", "the audit log does not verify"),
        ("UPDATE campaign SET state = 'running'", "campaign first is running"),
        ("UPDATE task SET state = 'failed' WHERE model_id = 'r6'", "r6 is failed in first"),
        ("DELETE FROM task WHERE model_id = 'r6'", "the audit log has r6 applied 1 times"),
    ],
)
def test_what_the_coordinator_lost_is_found(
    rounds: Rounds, world: World, damage: str, finding: str
) -> None:
    with closing(sqlite3.connect(world.folder / DATABASE, isolation_level=None)) as db:
        db.execute(damage)
    assert any(text.startswith(finding) for text in rounds.find_violations(world))


def test_what_is_left_over_is_found(rounds: Rounds, world: World) -> None:
    (owner_folder(world.folder, "owner-0") / "objects" / ".disinherit-0.tmp").touch()
    (text,) = rounds.find_violations(world)
    assert "disinherit-0.tmp is left over" in text


def test_a_table_and_an_exit_code_tell_what_came_of_it() -> None:
    tally = Tally(7)
    tally.add("disk full", 2, [])
    tally.add("disk full", 3, ["round 1: no room"])
    assert "| disk full |        5 |         2 |        1 |" in tally.table()
    assert tally.failures == ["round 1: no room"]
    assert tally.to_dict()["injected"] == 5
