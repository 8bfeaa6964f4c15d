"""Faults at random points, a dozen instead of hundreds: `make chaos` is the rest."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import torch
from google.protobuf.message import Message
from safetensors.torch import save

from disinherit.common.errors import DisinheritError
from disinherit.simulations.run.folder import DATABASE
from disinherit.v1 import unlearning_pb2 as pb
from disinherit.v1.graph_pb2 import ModelRecord
from tests.acceptance.chaos.clocks import HOUR, SetClock
from tests.acceptance.chaos.federation import REQUESTS, World, make_request, owner_folder
from tests.acceptance.chaos.liars import contradicted
from tests.acceptance.chaos.lies import HOSTILE, LYING, Lie, changed
from tests.acceptance.chaos.rounds import CHANGES, CLASSES, KINDS, Rounds
from tests.acceptance.chaos.tally import Tally

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
        "clock set to and fro",
        "coordinator's database put back from a copy",
        "owner's folder put back from a copy",
        "signing key lost or revoked",
        "owner that refuses",
        "owner that lies",
        "oversized or hostile field",
    ],
)
def test_campaigns_recover_from_it(rounds: Rounds, kind: str) -> None:
    check_recovery(rounds, kind, CLASSES)


@pytest.mark.parametrize(
    "kind",
    [
        "coordinator killed at any call",
        "owner killed while it writes",
        "oversized or hostile field",
    ],
)
def test_campaigns_by_changes_of_roots_recover_from_it(rounds: Rounds, kind: str) -> None:
    check_recovery(rounds, kind, CHANGES)


def check_recovery(rounds: Rounds, kind: str, what: str) -> None:
    rounds.tally = Tally(SEED)
    rounds.carry_out(kind, KINDS[kind], 1, [what])
    assert rounds.tally.failures == []
    assert rounds.tally.injected > 0
    assert rounds.tally.lines[kind].recovered == rounds.tally.injected


@pytest.mark.parametrize("lies", [LYING, HOSTILE])
def test_every_lie_can_be_told_of_a_reply_of_its_kind(
    lies: Mapping[type[Message], Sequence[Lie]],
) -> None:
    """Each changes the reply, and leaves the truth as it was."""
    packet = pb.FisherPacket(tensors=save({"w": torch.ones(2, 3)}), labels=["a"])
    change = pb.FisherPacket(tensors=packet.tensors, delta=pb.Delta(root_method="replay"))
    replies = {
        pb.UnlearnReply: pb.UnlearnReply(models=[pb.ModelResult(model_id="m")]),
        pb.FisherReply: pb.FisherReply(roots=[pb.RootFisher(packets=[packet])]),
        pb.Delta: pb.FisherReply(roots=[pb.RootFisher(packets=[change])]),
        pb.EvaluateReply: pb.EvaluateReply(models=[pb.Evaluation(model_id="m")]),
        pb.RegisterReply: pb.RegisterReply(models=[ModelRecord(id="m", labels=["a"])]),
    }
    for kind, some in lies.items():
        truth = replies[kind].SerializeToString()
        for lie in some:
            told = changed(Random(0), {kind: [lie]}, replies[kind])
            assert told.SerializeToString() != truth
        assert replies[kind].SerializeToString() == truth
        assert changed(Random(0), lies, type(replies[kind])()) is None
    assert changed(Random(0), lies, pb.Identity(owner="o")) is None


def test_a_clock_that_was_set_is_right_again_after_the_block() -> None:
    random, right = Random(1), time.time_ns
    with SetClock() as clock:
        for _ in range(20):
            before = clock.offset
            clock.jump(random)
            assert clock.offset != before
            assert abs(time.time_ns() - right() - clock.offset) < HOUR // 60
    assert time.time_ns is right


def test_a_model_that_is_verified_by_a_lie_is_found(rounds: Rounds, world: World) -> None:
    with closing(sqlite3.connect(world.folder / DATABASE, isolation_level=None)) as db:
        (data,) = db.execute("SELECT result FROM task WHERE model_id = 'r3~first'").fetchone()
        result = pb.ModelResult.FromString(data)
        result.successor.digest = "ab" * 32
        change = "UPDATE task SET result = ? WHERE model_id = 'r3~first'"
        db.execute(change, [result.SerializeToString()])
    (found,) = contradicted(world, "second", "owner-0", as_root=False)
    assert found == "r3~first is verified in second, which its owner does not hold"


def test_old_weights_that_were_destroyed_are_found(rounds: Rounds, world: World) -> None:
    with closing(sqlite3.connect(world.folder / DATABASE, isolation_level=None)) as db:
        db.execute("UPDATE task SET destroyed_us = 1 WHERE model_id = 'r3'")
    assert "the old weights of r3 were destroyed in first" in rounds.find_violations(world)


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


def test_new_weights_that_an_owner_still_keeps_are_found(rounds: Rounds, world: World) -> None:
    index = owner_folder(world.folder, "owner-2") / "index.db"
    with closing(sqlite3.connect(index, isolation_level=None)) as db:
        db.execute("INSERT INTO prepared SELECT 'third', id, digest, x'' FROM models LIMIT 1")
    assert rounds.find_violations(world) == ["owner-2 keeps new weights of r1 for third"]


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
