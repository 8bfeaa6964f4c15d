"""One transaction about a campaign: tasks, successors, packets, notifications and their entries."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from sqlalchemy import Connection

from disinherit.common.audit.chain import AuditEvent
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord
from disinherit.server.states import Answered, Task
from disinherit.server.store.audit import append_news, make_event, packets_used
from disinherit.server.store.audit_events import COORDINATOR, AuditKind, owner_actor
from disinherit.server.store.campaigns import Driven, Known, find_driven
from disinherit.server.store.cleared import check_claim
from disinherit.server.store.graph import find_records
from disinherit.server.store.leases import Lease
from disinherit.server.store.notifications import notified_events
from disinherit.server.store.packets import put_packets
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.successors import put_successors
from disinherit.server.store.tasks import put_found_tasks
from disinherit.v1.unlearning_pb2 import FisherPacket

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})
_FEW = 100
"""Models that are changed in a moment, so that other writers may share the transaction."""


@contextmanager
def changing(
    store: CoordinatorStore,
    request_id: str,
    models: Collection[str] | None = (),
    lease: Lease | None = None,
    graph: InheritanceGraph | None = None,
    known: Known | None = None,
) -> Iterator["Change"]:
    """Begin a transaction about a campaign, whose changes are logged at its end.

    Args:
        store: the store.
        request_id: the request.
        models: models whose tasks it changes; `None` for all.
        lease: the lease of the pass that writes.
        graph: has the versions concerned, if it was read already.
        known: the tasks as the pass knows them.

    Yields:
        The change to fill.

    Raises:
        RequestError: if there is no such request.
        StoreError: if the lease was lost; nothing is stored then.
    """
    count = len(models) if models is not None else len(known.tasks) if known is not None else _FEW
    with store.writing(together=count < _FEW) as db:
        driven = find_driven(db, request_id, models, known)
        if lease is not None:
            driven.holding.check(lease)
        change = Change(db, driven, InheritanceGraph() if graph is None else graph)
        yield change
        change.log()


class Change:
    """The changes of one transaction to a campaign.

    Args:
        db: the transaction.
        driven: the campaign as the transaction read it.
        graph: versions that were read already.

    Attributes:
        tasks: model -> its new task, of the changed tasks.
        changes: how often the campaign's tasks were changed, with the changes made by this.
    """

    def __init__(self, db: Connection, driven: Driven, graph: InheritanceGraph) -> None:
        self.db = db
        self.driven = driven
        self.tasks: dict[str, Task] = {}
        self.changes = driven.changes
        self._id = driven.campaign.request_id
        self._graph = graph
        self._events: list[tuple[AuditEvent, bool]] = []
        self._told: set[str] = set()

    def put(self, tasks: Sequence[Task], fishers: Mapping[str, Sequence[str]] = _NONE) -> None:
        """Add or change tasks, at most one for a model.

        Args:
            tasks: the new tasks.
            fishers: model -> SHA-256 of the Fisher packets it is dampened with.
        """
        if not tasks:
            return
        before = {}
        for model in (task.model_id for task in tasks):
            known = self.tasks.get(model) or self.driven.tasks.get(model)
            if known is not None:
                before[model] = known
        # A model that is judged later was changed with what it had been changed with.
        judged = [
            task.model_id
            for task in tasks
            if task.state.unforgotten
            and task.model_id in before
            and before[task.model_id].state.done
        ]
        if judged := [model for model in judged if model not in fishers]:
            fishers = packets_used(self.db, self._id, judged) | dict(fishers)
        stored, events = put_found_tasks(
            self.db, self._id, tasks, before, self._digests, fishers, self._told
        )
        self.changes += 1
        self._events += events
        self.tasks |= {task.model_id: task for task in stored}

    def put_answered(self, answered: Sequence[Answered]) -> dict[str, str]:
        """Store successors with their tasks.

        Returns:
            Model -> why the graph refuses its successor; nothing of these is stored.
        """
        answered = [check_claim(self.db, self._id, one) for one in answered]
        made = {one.task.model_id: one.successor for one in answered}
        tasks = self.driven.tasks
        given = {model: tasks[model].given_us for model in made if model in tasks}
        refused = put_successors(self.db, self._id, made, given)
        accepted = [one for one in answered if one.task.model_id not in refused]
        fishers = {one.task.model_id: one.packets for one in accepted}
        self.put([one.task for one in accepted], fishers)
        return refused

    def put_packets(self, answered: Mapping[str, Sequence[FisherPacket]]) -> None:
        """Store roots' packets, and replace their earlier ones; an empty answer discards these.

        Args:
            answered: root -> its Fisher packets, whose files are stored.
        """
        put_packets(self.db, self._id, answered)
        owners = {root: record.owner for root, record in self._records(answered).items()}
        for root, packets in answered.items():
            owner = owners.get(root, "")
            event = make_event(
                AuditKind.FISHER_RECEIVED if packets else AuditKind.FISHER_DISCARDED,
                owner_actor(owner) if packets else COORDINATOR,
                request_id=self._id,
                model_id=root,
                owner=owner,
                fishers=tuple(packet.digest for packet in packets),
            )
            self._events.append((event, False))

    def notified(self, owner: str, models: Collection[str], *, tasked: bool = False) -> None:
        """Record that an owner was notified of the request about some of its versions.

        Args:
            owner: the owner that answered.
            models: the versions that the message to it named.
            tasked: whether the message was their task, which is put next.
        """
        self._told.update(models if tasked else ())
        self._events += [(event, True) for event in notified_events(self._id, owner, models)]

    def log(self) -> None:
        """Add the changes so far to the log."""
        append_news(self.db, self._id, self._events)
        self._events = []

    def _records(self, models: Collection[str]) -> dict[str, ModelRecord]:
        found = {model: self._graph.model(model) for model in models if model in self._graph}
        return found | find_records(self.db, set(models) - found.keys())

    def _digests(self, models: Collection[str]) -> dict[str, str]:
        return {model: record.digest for model, record in self._records(models).items()}
