"""The driver: a loop of passes over open campaigns until they end.

A pass is idempotent and carries out remaining tasks only.  So the driver makes one whenever
something may have changed: an owner is back, a campaign was approved, or time has passed.
"""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from disinherit.common.errors import (
    CampaignError,
    DisinheritError,
    InputError,
    NotDrivenError,
)
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.now import now_us
from disinherit.server.states import CampaignState
from disinherit.server.store.audit import last_growth
from disinherit.server.store.campaigns import (
    find_campaigns,
    find_concerned,
    find_joinable,
    find_near,
)
from disinherit.server.store.packets import find_answered

_LOG = logging.getLogger(__name__)

_REST = 4.0
"""How much longer than a look without progress the driver rests, but at most some intervals.

So whoever keeps changing what no campaign can use leaves most of the machine to callers.
"""

_LONGEST_REST = 4
"""Intervals that it rests at most."""


@dataclass(slots=True)
class _Turn:
    """A campaign's last pass, and when the next one is due.

    Attributes:
        due: the time of the next pass, in monotonic seconds.
        delay: the delay before it, in seconds.
        seen: the state on which the last pass depended.
        failed: whether the last pass ended with an error.
    """

    due: float
    delay: float
    seen: Hashable
    failed: bool = False

    def waits(self, seen: Hashable, changed: bool) -> bool:
        """Return whether the next pass is not due yet.

        A failed pass waits out its delay even if something changed elsewhere, unless the state on
        which it depends has changed.
        """
        if self.due <= time.monotonic() or self.seen != seen:
            return False
        return self.failed or not changed


class Driver:
    """Makes passes over open campaigns in a thread of its own, one at a time.

    Two campaigns may dampen the same model, so they take turns.  A campaign without progress backs
    off exponentially until something changes: `poke` is called, its own state in the store changes,
    or an older campaign makes progress, which may have blocked it.  After a failed pass only a
    change of its own state counts; otherwise an answer that makes a pass fail would be requested
    again at once.

    Args:
        open_campaigns: returns the campaigns to drive, the oldest first, each with a state that
            changes whenever its next pass may do better than the last.
        run: makes one pass over a campaign.
        interval: shortest time between passes, in seconds.
        longest: longest delay of a campaign without progress, in seconds.
    """

    def __init__(
        self,
        open_campaigns: Callable[[], Mapping[str, Hashable]],
        run: Callable[[str], CampaignResult],
        interval: float = 5.0,
        longest: float = 300.0,
    ) -> None:
        self._open = open_campaigns
        self._run = run
        self._interval = interval
        self._longest = longest
        self._turns: dict[str, _Turn] = {}
        self._wake = threading.Event()
        self._poked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="driver", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poke(self) -> None:
        """Make every open campaign due now, except failed ones."""
        self._poked.set()
        self._wake.set()

    def wake(self) -> None:
        """Look for what has changed now."""
        self._wake.set()

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop after the present pass.

        Args:
            timeout: seconds to wait for it.  A pass that is cut off later loses nothing: its
                results are stored, and the next one does the rest.

        Returns:
            Whether the thread has stopped.
        """
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            if self._poked.is_set():
                self._poked.clear()
                self._turns = {id: turn for id, turn in self._turns.items() if turn.failed}
            begun, moved = time.monotonic(), False
            try:
                moved = self._drive()
            except Exception:  # the next pass may succeed
                _LOG.exception("the open campaigns cannot be driven")
            if not moved:
                rest = _REST * (time.monotonic() - begun)
                self._stopping.wait(min(_LONGEST_REST * self._interval, rest))
            self._wake.wait(self._interval)
            self._wake.clear()

    def _drive(self) -> bool:
        """Make the passes that are due, and return whether one made progress."""
        campaigns = self._open()
        self._turns = {id: turn for id, turn in self._turns.items() if id in campaigns}
        changed = False
        for id, seen in campaigns.items():
            turn = self._turns.get(id)
            if self._stopping.is_set():
                return changed
            if turn is not None and turn.waits(seen, changed):
                continue
            onwards = self._pass(id)
            changed |= bool(onwards)
            delay = self._interval
            if not onwards and turn is not None and turn.seen == seen:
                delay = min(2 * turn.delay, self._longest)
            # Jitter, so that coordinators and campaigns do not keep step.
            due = time.monotonic() + delay * random.uniform(0.5, 1.0)
            self._turns[id] = _Turn(due, delay, seen, failed=onwards is None)
        return changed

    def _pass(self, id: str) -> bool | None:
        """Make one pass, and return whether it made progress; `None` if it failed."""
        try:
            result = self._run(id)
        except NotDrivenError:  # somebody stopped it since, as the log says
            return False
        except CampaignError as error:  # another coordinator drives it
            _LOG.warning("campaign %s: %s", id, error)
            return False
        except DisinheritError as error:
            _LOG.warning("campaign %s: %s", id, error)
            return None
        except Exception:  # one campaign must not stop the others
            _LOG.exception("campaign %s failed", id)
            return None
        return bool(result.changed)


_DRIVEN = (CampaignState.RUNNING, CampaignState.ROLLING_BACK)


class OpenCampaigns:
    """The campaigns to drive, among them ended ones that late descendants join.

    Late descendants are versions that become affected after a campaign has ended.  Planning is
    expensive, so ended campaigns are planned again only when the graph has grown.

    Args:
        coordinator: plans requests and has the store.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._known: int | None = None
        self._turn = threading.Lock()
        self._heard: deque[str] = deque()
        self._steered: deque[str] = deque()
        # Of campaigns that something new concerns: how often it did.
        self._news: Counter[str] = Counter()

    def hear(self, owner: str) -> None:
        """Have campaigns with tasks for an owner driven, after news from it."""
        self._heard.append(owner)

    def steered(self, request_id: str) -> None:
        """Have a campaign driven that a person has changed, and those with models in common."""
        self._steered.append(request_id)

    def __call__(self) -> dict[str, Hashable]:
        """Return the campaigns that run, roll back or have versions to destroy, the oldest first.

        Returns:
            Id -> the state on which the next pass depends, apart from the owners; it changes when
            another coordinator makes progress.  Empty while a loss of history is unconfirmed.

        Raises:
            StoreError: if the store cannot be used.
        """
        store = self._coordinator.store
        store.watch_history()
        if store.history_lost():
            return {}
        with self._turn:
            since = -1 if self._known is None else self._known
            with store.reading() as db:
                grown = last_growth(db, since)
                joinable = find_joinable(db, since) if grown != self._known else []
                if self._known not in (None, grown):
                    self._news.update(find_joinable(db, since, _DRIVEN))
                self._news.update(find_concerned(db, _taken(self._heard), _DRIVEN))
                self._news.update(find_near(db, _taken(self._steered), _DRIVEN))
            for request_id in joinable:
                self._join(request_id)
            self._known = grown
        due = store.due_destructions()
        with store.reading() as db:
            campaigns = [
                campaign
                for campaign in find_campaigns(db, _DRIVEN, also=due)
                if campaign.state in _DRIVEN
                or (campaign.request_id in due and not campaign.state.stopped)
            ]
            answered = find_answered(db, [campaign.request_id for campaign in campaigns])
        now = now_us()
        return {
            campaign.request_id: (
                self._news[campaign.request_id],
                answered.get(campaign.request_id, frozenset()),
                0 < campaign.deadline_us <= now,
            )
            for campaign in campaigns
        }

    def _join(self, request_id: str) -> None:
        try:
            self._coordinator.submit(self._coordinator.store.request(request_id), notes=False)
        except InputError as error:  # one campaign must not block the others
            _LOG.warning("campaign %s cannot take in late versions: %s", request_id, error)


def _taken(line: deque[str]) -> set[str]:
    """Take what is in a line, and return each once."""
    return {line.popleft() for _ in range(len(line))}
