"""The runner: one task at a time, each once while it is remembered, and a clean stop."""

import hashlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from disinherit.client.agent.download import Downloads
from disinherit.client.agent.runner import Runner, Stopped, TaskAnswer
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.v1 import agents_pb2
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.agent import wait_for
from tests.support.client_tasks import make_method
from tests.support.owner import LABELS, PointsOwner

PANEL = pb.EvaluateTask(model_ids=["m"]).SerializeToString()


class Desk:
    """A runner, the answers to its tasks, and the number of times the owner was opened."""

    def __init__(self, root: Path) -> None:
        with PointsOwner(root / "anna", "anna") as owner:
            owner.train("m", LABELS, 1)
        self.answers: queue.SimpleQueue[TaskAnswer] = queue.SimpleQueue()
        self.opened = 0
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

        self.fetched: list[str] = []

        def fetch(digest: str, offset: int) -> Iterator[agents_pb2.Chunk]:
            self.fetched.append(digest)
            raise Stopped

        def open_owner() -> PointsOwner:
            self.opened += 1
            self.busy.set()
            assert self.free.wait(30.0)
            return PointsOwner(root / "anna", "anna")

        self.runner = Runner(
            "anna",
            open_owner,
            Downloads(root / "downloads", fetch),
            self.answers.put,
            ReleasePolicy(min_forget_samples=25),
        )

    def submit(
        self,
        task_id: str,
        action: str = "evaluate.panel",
        task: bytes = PANEL,
        blobs: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        sent = agents_pb2.AgentTask(task_id=task_id, action=action, task=task, blobs=blobs)
        self.runner.submit(sent)

    def answer(self) -> TaskAnswer:
        return self.answers.get(timeout=30.0)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.runner.stop(30.0)


def test_the_devices_release_policy_is_enforced(desk: Desk) -> None:
    """Each class has 24 samples, and the owner itself sets no policy."""
    task = pb.FisherTask(
        roots=[pb.Root(model_id="m", classes=["cat"])], method=make_method().to_proto()
    )
    desk.submit("a", "query.fisher", task.SerializeToString())
    (root,) = pb.FisherReply.FromString(desk.answer().data).roots
    assert root.withheld
    assert "at least 25 samples" in root.error


def test_a_task_sent_again_while_running_runs_once(desk: Desk) -> None:
    desk.free.clear()
    desk.submit("a")
    assert desk.busy.wait(30.0)
    desk.submit("a")
    desk.submit("b")
    desk.free.set()
    assert [desk.answer().task_id, desk.answer().task_id] == ["a", "b"]
    assert desk.opened == 2


def test_last_answers_are_repeated_and_older_tasks_run_again(desk: Desk) -> None:
    answers = []
    for task_id in ("a", "b", "c"):
        desk.submit(task_id)
        answers.append(desk.answer())
    assert all(pb.EvaluateReply.FromString(answer.data).models for answer in answers)
    desk.submit("c")
    assert desk.answer() == answers[2]
    assert desk.opened == 3
    desk.submit("a")
    assert desk.answer() == answers[0]
    assert desk.opened == 4


@pytest.mark.parametrize(
    ("action", "task", "words"),
    [
        ("delete.everything", b"", "'delete.everything'"),
        ("evaluate.panel", b"\xff", "well-formed task"),
        ("query.register", pb.RegisterTask(model_ids=["x"]).SerializeToString(), "'x'"),
    ],
)
def test_a_failed_task_is_answered_with_the_reason(
    action: str, task: bytes, words: str, desk: Desk
) -> None:
    desk.submit("a", action, task)
    answer = desk.answer()
    assert words in answer.error
    assert not answer.data
    desk.submit("b")
    assert not desk.answer().error


def test_stopping_finishes_the_current_task_and_begins_no_other(desk: Desk) -> None:
    desk.free.clear()
    desk.submit("a")
    desk.submit("b")
    assert desk.busy.wait(30.0)
    desk.runner.stop(0.0)
    desk.free.set()
    desk.runner.stop(30.0)
    assert desk.answer().task_id == "a"
    assert desk.answers.empty()
    assert desk.opened == 1


def test_stopping_leaves_a_download_without_an_answer(desk: Desk) -> None:
    task = pb.UnlearnTask(fishers=[pb.FisherPacket(digest="0" * 64)])
    desk.submit("a", "train.unlearn", task.SerializeToString())
    desk.runner.stop(30.0)
    assert desk.answers.empty()
    assert desk.opened == 0


def test_an_agent_imports_no_heavy_packages() -> None:
    heavy = "flwr", "ray", "sqlalchemy", "networkx", "rich", "typer", "matplotlib"
    code = (
        "import sys, disinherit.client.agent\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("whole", [True, False])
def test_a_packet_that_comes_along_whole_is_not_fetched(whole: bool, desk: Desk) -> None:
    """One that is damaged is."""
    digest = hashlib.sha256(b"packet").hexdigest()
    task = pb.UnlearnTask(fishers=[pb.FisherPacket(digest=digest)])
    blobs = {digest: b"packet" if whole else b"packed"}
    desk.submit("a", "train.unlearn", task.SerializeToString(), blobs)
    if whole:
        assert desk.answer().task_id == "a"
    else:
        wait_for(lambda: desk.fetched == [digest])
    assert bool(desk.fetched) is not whole
