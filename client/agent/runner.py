"""The runner of an agent: carries out one task at a time, in its own thread, by handlers."""

import functools
import hashlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from disinherit.client.agent.download import Downloads
from disinherit.client.handlers import handlers
from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.common.errors import InputError
from disinherit.common.wire.messages import ACTIONS
from disinherit.common.wire.packets import attach_tensors
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1 import unlearning_pb2

OpenOwner = Callable[[], AbstractContextManager[Owner]]
"""Opens the owner for one task."""

_REMEMBERED = 2  # answers may be large


class Stopped(Exception):  # noqa: N818
    """The agent is being stopped: the current task is not answered, and will be sent again."""


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """The answer to a task.

    Attributes:
        task_id: id of the task.
        data: the serialised reply.
        error: reason of a missing reply; empty with a reply.
    """

    task_id: str
    data: bytes = b""
    error: str = ""


class Runner:
    """Carries out tasks and answers them.

    A task that is sent again while it is running, as after a lost connection, is not run twice.
    The last answers are kept.

    Args:
        owner: name of the owner of the models on this device.
        open_owner: opens the owner.
        downloads: fetches the Fisher packets that do not come along with a task.
        answer: called with every answer, from the runner's thread.
        policy: conditions on released Fisher information, in addition to the owner's own.
        acceptance: conditions on changes that are added to models, likewise.
    """

    def __init__(
        self,
        owner: str,
        open_owner: OpenOwner,
        downloads: Downloads,
        answer: Callable[[TaskAnswer], None],
        policy: ReleasePolicy = OPEN,
        acceptance: AcceptancePolicy = ANYBODY,
    ) -> None:
        self._owner = owner
        self._open_owner = open_owner
        self._downloads = downloads
        self._answer = answer
        self._handlers = handlers(policy, acceptance)
        self._queue: queue.SimpleQueue[pb.AgentTask | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun: dict[str, pb.AgentTask] = {}
        self._answers: OrderedDict[str, TaskAnswer] = OrderedDict()
        # A daemon thread: handlers may be killed at any time, so it must not delay the exit.
        self._thread = threading.Thread(target=self._run, name="tasks", daemon=True)
        self._thread.start()

    def submit(self, task: pb.AgentTask) -> None:
        """Queue a task and return at once."""
        with self._lock:
            answer = self._answers.get(task.task_id)
            if answer is None:
                if task.task_id not in self._begun:
                    self._begun[task.task_id] = task
                    self._queue.put(task)
                return
        self._answer(answer)

    def stop(self, seconds: float) -> None:
        """Let the current task end within some seconds, and begin no other."""
        with self._lock:
            self._begun.clear()
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            if task.task_id not in self._begun:
                continue  # stopped
            try:
                answer = self._do(task)
            except Stopped:
                break
            with self._lock:
                self._begun.pop(task.task_id, None)
                self._answers[task.task_id] = answer
                while len(self._answers) > _REMEMBERED:
                    self._answers.popitem(last=False)
            self._answer(answer)

    def _do(self, task: pb.AgentTask) -> TaskAnswer:
        try:
            reply = self._handle(task)
        except Stopped:
            raise
        except Exception as error:  # includes errors of the owner's loaders and networks
            return TaskAnswer(task.task_id, error=explain(error, f"do {task.action}"))
        return TaskAnswer(task.task_id, reply.SerializeToString(deterministic=True))

    def _handle(self, task: pb.AgentTask) -> Message:
        handler = self._handlers.get(task.action)
        if handler is None:
            raise InputError(
                f"Expected an action among {', '.join(self._handlers)}, but got {task.action!r}."
            )
        try:
            message = ACTIONS[task.action].task.FromString(task.task)
        except DecodeError as error:
            raise InputError(f"Expected a well-formed task, but it is damaged: {error}.") from error
        attach_tensors(message, functools.partial(self._blob, task))
        with self._open_owner() as owner:
            check_owner(owner.store.owner, self._owner)
            reply = handler(owner, message)
        self._downloads.keep_only(self._needed_digests(task.task_id))
        return reply

    def _blob(self, task: pb.AgentTask, digest: str) -> bytes:
        """Return a blob that came along with a task, or is downloaded."""
        along: bytes = task.blobs.get(digest, b"")
        whole = hashlib.sha256(along).hexdigest() == digest
        return along if whole else self._downloads.get(digest)

    def _needed_digests(self, done: str) -> set[str]:
        """Return the digests that waiting tasks will need."""
        with self._lock:
            waiting = [task for id, task in self._begun.items() if id != done]
        return {
            packet.digest
            for task in waiting
            if task.action in ACTIONS and ACTIONS[task.action].carries_packets
            for packet in unlearning_pb2.UnlearnTask.FromString(task.task).fishers
        }


def check_owner(opened: str, name: str) -> None:
    """Check that the factory opened the models of the configured owner.

    Args:
        opened: name of their owner.
        name: the configured name.

    Raises:
        InputError: if the names differ.
    """
    if opened != name:
        raise InputError(
            f"Expected the models of owner {name!r}, as in the agent's configuration, but its "
            f"factory opens those of {opened!r}."
        )
