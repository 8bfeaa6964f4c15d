"""Comparison of what owners hold at a later contact with what is recorded of them.

A device may fall back to an image from before a request: then it holds the version that was to
forget, and no successor of it, though the record says that it has forgotten.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from disinherit.server.states import Task

_LEAST_SECONDS = 60.0
"""Between two checks of an owner, however often it connects."""

_FIRST_DELAY = 5.0
_LONGEST_DELAY = 300.0


def fallen_back(
    done: Iterable[tuple[str, Task]], held: Collection[str]
) -> list[tuple[str, Task, str]]:
    """Return what has to be done again, as its owner holds its result no more.

    What an owner holds nothing of at all is left out: nothing is there that could know anything.

    Args:
        done: (request, task) of what the owner did.
        held: ids of the versions that it holds.

    Returns:
        (request, task, reason), in the order in which it was done.
    """
    there = set(held)
    found = []
    for request_id, task in sorted(done, key=_age):
        made = task.successor
        if made is None or made.id in there or task.model_id not in there:
            continue
        reason = (
            f"its owner fell back to a state from before: it holds {task.model_id}, and not "
            f"{made.id}, which was made of it"
        )
        found.append((request_id, task, reason))
        there.add(made.id)  # it will be again
    return found


def _age(done: tuple[str, Task]) -> tuple[int, str]:
    made = done[1].successor
    return (0, "") if made is None else (made.created_us, made.id)


@dataclass(slots=True)
class _Due:
    at: float
    delay: float = _FIRST_DELAY


class Contacts:
    """Checks what owners hold once they have connected.

    Args:
        check: asks owners, and returns those that have not answered yet.
    """

    def __init__(self, check: Callable[[Collection[str]], Collection[str]]) -> None:
        self._check = check
        self._due: dict[str, _Due] = {}
        self._checked: dict[str, float] = {}
        self._lock = threading.Lock()

    def arrived(self, owner: str) -> None:
        """Note that an owner has connected; returns at once."""
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
                    continue  # it has connected anew
                if owner in waiting:
                    delay = min(2 * one.delay, _LONGEST_DELAY)
                    self._due[owner] = _Due(time.monotonic() + one.delay, delay)
                else:
                    del self._due[owner]
                    self._checked[owner] = now
