"""Comparison of the versions that owners hold, at a later contact, with the records.

A device may fall back to an image from before a request.  Then it holds the version that had to
forget, and no successor, although the records have one.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from disinherit.server.states import Task
from disinherit.server.store.repeated_tasks import find_made, put_fallen_back
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import reply_of
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb

_LEAST_SECONDS = 60.0
"""Shortest time between two checks of an owner, however often it connects."""

_FIRST_DELAY = 5.0
_LONGEST_DELAY = 300.0


def fallen_back(
    done: Iterable[tuple[str, Task]], held: Collection[str]
) -> list[tuple[str, Task, str]]:
    """Return the tasks to repeat, since their owner no longer holds the results.

    A task is left out if the owner holds neither the version nor its successor.

    Args:
        done: (request, task) of the owner's finished tasks.
        held: ids of the versions that it holds.

    Returns:
        (request, task, reason), in the order in which the tasks were done.
    """
    there = set(held)
    found = []
    for request_id, task in sorted(done, key=_age):
        made = task.successor
        if made is None or made.id in there or task.model_id not in there:
            continue
        reason = (
            f"its owner fell back to an earlier state: it holds {task.model_id}, and not "
            f"{made.id}, its successor"
        )
        found.append((request_id, task, reason))
        there.add(made.id)  # it will be made again
    return found


def _age(done: tuple[str, Task]) -> tuple[int, str]:
    made = done[1].successor
    return (0, "") if made is None else (made.created_us, made.id)


def record_held(store: CoordinatorStore, owner: str, held: Collection[str]) -> list[str]:
    """Compare the versions that an owner holds with its tasks, and repeat tasks with lost results.

    Args:
        store: requests and tasks.
        owner: the owner.
        held: ids of the recorded versions that it holds.

    Returns:
        The requests whose campaigns were reopened.
    """
    with store.reading() as db:
        found = fallen_back(find_made(db, [owner]).get(owner, []), held)
    if not found:
        return []
    with store.writing() as db:
        return put_fallen_back(db, owner, found)


def check_held(
    store: CoordinatorStore,
    ask: Callable[[Sequence[Ask]], Iterator[Answer]],
    owners: Collection[str],
) -> set[str]:
    """Ask owners which of their successors they still hold.

    If a device fell back to an earlier state, its campaigns are reopened.

    Args:
        store: requests and tasks.
        ask: sends messages to owners, and yields their answers.
        owners: the owners.

    Returns:
        The owners that have not answered.
    """
    asks, waiting = [], set()
    with store.reading() as db:
        done = find_made(db, owners)
    for owner, tasks in done.items():
        made = {made.id for _, task in tasks if (made := task.successor) is not None}
        ids = sorted(made.union(task.model_id for _, task in tasks))
        task = pb.EvaluateTask(model_ids=ids, digests_only=True, presence_only=True)
        asks.append(Ask(owner, "evaluate.panel", task))
    for answer in ask(asks) if asks else ():
        reply, _ = reply_of(answer, pb.EvaluateReply)
        if reply is not None:
            asked = set(cast("pb.EvaluateTask", answer.ask.task).model_ids)
            gone = {found.model_id for found in reply.models if found.missing}
            record_held(store, answer.ask.owner, asked - gone)
        elif answer.unreachable:
            waiting.add(answer.ask.owner)
    return waiting


@dataclass(slots=True)
class _Due:
    at: float
    delay: float = _FIRST_DELAY


class Contacts:
    """Checks of owners that have connected, with back-off.

    Args:
        check: asks owners, and returns those that have not answered.
    """

    def __init__(self, check: Callable[[Collection[str]], Collection[str]]) -> None:
        self._check = check
        self._due: dict[str, _Due] = {}
        self._checked: dict[str, float] = {}
        self._lock = threading.Lock()

    def arrived(self, owner: str) -> None:
        """Schedule a check of an owner that has connected."""
        with self._lock:
            last = self._checked.get(owner, float("-inf"))
            self._due[owner] = _Due(max(time.monotonic(), last + _LEAST_SECONDS))

    def look(self) -> None:
        """Check the owners that are due.

        Raises:
            StoreError: if the store cannot be used; they stay due.
        """
        now = time.monotonic()
        with self._lock:
            due = {owner: one for owner, one in self._due.items() if one.at <= now}
        if not due:
            return
        waiting = self._check(due)
        with self._lock:
            for owner, one in due.items():
                if self._due.get(owner) is not one:
                    continue  # it has connected again
                if owner in waiting:
                    delay = min(2 * one.delay, _LONGEST_DELAY)
                    self._due[owner] = _Due(time.monotonic() + one.delay, delay)
                else:
                    del self._due[owner]
                    self._checked[owner] = now
