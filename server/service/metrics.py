"""Metrics of a coordinator, for Prometheus; `docs/metrics.md` lists them.

No metric has the name of a model, an owner, a request or a caller.
"""

import importlib.metadata
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Column, Connection, func, select

from disinherit.common.errors import DisinheritError
from disinherit.server.service.exposition import Counter, Histogram, MetricFamily, exposed, gauge
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.audit import last_sequence
from disinherit.server.store.database import Database
from disinherit.server.store.history import find_lost
from disinherit.server.store.owners import count_owners
from disinherit.server.store.presence import find_presence
from disinherit.server.store.tables import CAMPAIGNS, DELIVERIES, MODELS, TASKS

_CALL_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STORE_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_WAYS = ("agent", "flower")
_KINDS = ("read", "write", "wait")
_STORE_UP = "1 while the store answers; what is read from it is left out while it does not."
_QUEUES = "Open tasks of agents, threads that wait to write, and open watches."


class ServiceMetrics:
    """The metrics of one coordinator.

    Args:
        database: the coordinator's database; its transactions are measured from now on.
        queues: name -> number of things that wait or are open there now.
    """

    def __init__(self, database: Database, queues: Mapping[str, Callable[[], int]]) -> None:
        self._database = database
        self._queues = queues
        self._release = importlib.metadata.version("disinherit")
        text = "Calls that have ended, by method and gRPC status."
        self._calls = Counter("disinherit_rpc_total", text, ("method", "code"))
        text = "Duration of calls that are no streams, by method."
        self._seconds = Histogram("disinherit_rpc_seconds", text, "method", _CALL_BOUNDS)
        text = "Duration of transactions, and how long writers waited for their turn."
        self._store = Histogram("disinherit_store_seconds", text, "kind", _STORE_BOUNDS, _KINDS)
        database.observe = self._store.add

    def call_ended(self, method: str, code: str, seconds: float | None) -> None:
        """Count a call, as `disinherit.server.ports.metering.Ended`."""
        self._calls.add(method, code)
        if seconds is not None:
            self._seconds.add(method, seconds)

    def page(self) -> bytes:
        """Return all metrics as they are now; those of the store only while it answers."""
        try:
            with self._database.reading() as db:
                stored = list(_of_store(db))
        except DisinheritError:
            stored = []
        queues = {name: count() for name, count in self._queues.items()}
        return exposed(
            (
                gauge("disinherit_build_info", "1.", {self._release: 1}, "release"),
                gauge("disinherit_store_up", _STORE_UP, {"": bool(stored)}),
                *stored,
                gauge("disinherit_queue", _QUEUES, queues, "queue"),
                self._calls.family(),
                self._seconds.family(),
                self._store.family(),
            )
        )


def _of_store(db: Connection) -> Iterator[MetricFamily]:
    campaigns = dict.fromkeys((state.value for state in CampaignState), 0)
    campaigns |= _count(db, CAMPAIGNS.c.state)
    yield gauge("disinherit_campaigns", "Campaigns, by state.", campaigns, "state")
    tasks = dict.fromkeys((state.value for state in TaskState), 0) | _count(db, TASKS.c.state)
    yield gauge("disinherit_tasks", "Affected versions of all campaigns.", tasks, "state")
    models = db.scalar(select(func.count()).select_from(MODELS)) or 0
    yield gauge("disinherit_models", "Registered versions.", {"": models})
    online = Counts(one.way for one in find_presence(db, online=True).values())
    present = {way: online[way] for way in _WAYS}
    yield gauge("disinherit_owners_online", "Owners that are connected.", present, "way")
    yield gauge("disinherit_owners", "Owners that are known.", {"": count_owners(db)})
    text = "Number of the last entry of the audit log; it goes down only if a backup is restored."
    yield gauge("disinherit_audit_sequence", text, {"": last_sequence(db)})
    text = "Whether campaigns are stopped until the lost history is confirmed."
    yield gauge("disinherit_history_lost", text, {"": bool(find_lost(db))})
    sent = {
        "waiting": DELIVERIES.c.due_us > 0,
        "delivered": DELIVERIES.c.delivered_us > 0,
        "given_up": (DELIVERIES.c.due_us == 0) & (DELIVERIES.c.delivered_us == 0),
    }
    counts = {
        state: db.scalar(select(func.count()).select_from(DELIVERIES).where(which)) or 0
        for state, which in sent.items()
    }
    yield gauge("disinherit_webhooks", "Messages to webhooks.", counts, "state")


def _count(db: Connection, column: Column[Any]) -> dict[str, int]:
    query = select(column, func.count()).group_by(column)
    return {row[0]: row[1] for row in db.execute(query)}
