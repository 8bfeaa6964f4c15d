"""An agent process that is killed at the worst moments and resumes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.store.store import ModelStore
from disinherit.server.agents import blobs, transport
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.agent import AgentsSide, note_downloads, send_none_along, wait_for
from tests.support.client_tasks import apart, collect, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

CHUNK = 100
"""Bytes: also what arrives in a second, slow enough to be caught in the middle."""

SIGNALLED = """
import signal, threading, time
from disinherit.client.agent.agent import expect_signal
def send():
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
wait = expect_signal()
threading.Thread(target=send).start()
wait()
"""
"""A SIGTERM that another thread gets than the one that waits."""


@pytest.fixture
def side(tmp_path: Path) -> Iterator[AgentsSide]:
    with AgentsSide(tmp_path) as side:
        yield side


@pytest.fixture
def offsets(side: AgentsSide, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets at which downloads began."""
    monkeypatch.setattr(blobs, "CHUNK_BYTES", CHUNK)
    send_none_along(monkeypatch)
    return note_downloads(side, monkeypatch)


def make_unlearning(root: Path) -> pb.UnlearnTask:
    with PointsOwner(root, "anna") as owner:
        owner.train("m", LABELS, 1)
        method = make_method()
        return make_task(owner, ["m"], collect(owner, "m", ["cat"], method), method)


def without_faults(root: Path, task: pb.UnlearnTask) -> pb.ModelResult:
    """The result of a task in a copy of the owner."""
    copied = root.with_name("copy")
    shutil.copytree(root, copied)
    with PointsOwner(copied, "anna") as owner:
        (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    return result


def stored(root: Path) -> dict[str, str]:
    """Model -> digest of its weights on disk."""
    with ModelStore(root, "anna") as store:
        return {record.id: record.digest for record in store.records()}


@pytest.mark.slow
def test_a_killed_agent_resumes_and_applies_once(side: AgentsSide, offsets: list[int]) -> None:
    """Killed during the download, before it stores its result, and before it answers."""
    home = side.root / "anna"
    downloads = side.root / "state-anna" / "downloads"
    task = make_unlearning(home)
    expected = without_faults(home, task)
    size = len(task.fishers[0].tensors)
    assert size > 3 * CHUNK
    agents = transport.AgentTransport(side.hub, side.blobs, grace=60.0)
    answers: list[Answer] = []

    def ask() -> None:
        wait_for(lambda: side.connected() == ["anna"], 60.0)
        answers.extend(agents.ask([Ask("anna", "train.unlearn", *apart(task))], 120.0))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with side.process("anna", bytes_per_second=CHUNK) as process:
        wait_for(lambda: any(path.stat().st_size for path in downloads.glob("*.part")), 60.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (part,) = downloads.glob("*.part")
    arrived = part.stat().st_size
    assert 0 < arrived < size

    for when, held in (("before", {"m"}), ("after", {"m", expected.successor.id})):
        (home / f"halt-{when}").touch()
        with side.process("anna") as process:
            wait_for((home / "halted").exists, 60.0)
            process.send_signal(signal.SIGKILL)
            process.wait()
        (home / f"halt-{when}").unlink()
        (home / "halted").unlink()
        assert stored(home).keys() == held
    assert offsets == [0, arrived]  # complete on disk from then on

    with side.process("anna") as process:
        asking.join(60.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0
    (answer,) = answers
    assert isinstance(answer.reply, pb.UnlearnReply), answer.error
    (result,) = answer.reply.models
    assert result.outcome == pb.OUTCOME_ALREADY_APPLIED
    assert result.successor == expected.successor
    assert stored(home)[expected.successor.id] == expected.successor.digest
    assert list(downloads.iterdir()) == []


def test_what_an_agent_writes_only_its_user_reads(side: AgentsSide) -> None:
    before = os.umask(0o022)
    try:
        with side.process("anna"):
            wait_for(lambda: "anna" in side.connected(), 120)
            ask = Ask("anna", "evaluate.panel", pb.EvaluateTask(model_ids=["r1"]))
            assert list(side.transport.ask([ask], 60.0))
    finally:
        os.umask(before)
    made = [side.root / "anna", *(side.root / "anna").rglob("*")]
    made += (side.root / "state-anna").rglob("*")
    assert {"index.db", "agent.key"} <= {path.name for path in made}
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_an_agent_stops_whichever_of_its_threads_gets_the_signal() -> None:
    assert subprocess.run([sys.executable, "-c", SIGNALLED], timeout=120).returncode == 0
