"""One pass over a campaign: its data, read once, and its transactions.

A pass reads request, graph, tasks and state of its campaign when it begins, and keeps them in step
with its writes.  Each owner's answer is one transaction: tasks, successors, notifications and their
log entries.  Every transaction checks the lease's token, and whether somebody has paused or aborted
the campaign.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from disinherit.common.graph.records import ModelStatus
from disinherit.common.wire.messages import without_tensors
from disinherit.server.campaign.changes import Change, changing
from disinherit.server.campaign.dry_pass import DryPass, Say
from disinherit.server.campaign.result import CampaignResult, Timing
from disinherit.server.campaign.root_lines import root_line
from disinherit.server.planning.plan import Plan
from disinherit.server.states import CampaignState, Task
from disinherit.server.store.campaigns import Driven, Known, find_driven, find_older
from disinherit.server.store.graph import read_descendants
from disinherit.server.store.leases import Lease, release
from disinherit.server.store.model_rows import find_planned_roots
from disinherit.server.store.packets import find_packets
from disinherit.server.store.repeated_tasks import find_made_of
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.transitions import settle
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


class Pass(DryPass):
    """A pass over a campaign, under its lease.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: as for `DryPass`, like all that follow.
        timeout: likewise.
        say: likewise.
        resend: whether owners that answered are asked again; applied results stay.
        repeated: version -> digest of the weights that a repetition of the training gave.

    Attributes:
        part: the descendants of the request's roots, as they were stored when it began.
        campaign: the campaign after the last transaction of the pass.
        tasks: model -> its task after the last transaction about it, ancestors first.
        older: the running campaigns that are older.
        plan: the request's plan, made by the first step.
        late: the versions that are new to the campaign.
        left: the tasks of models that this pass may dampen.
        todo: model -> its task before the pass dampens it.
        attempted: all models that the pass tried to dampen.
        timing: seconds spent.
        changed: models that owners changed.
        already: models that owners had changed before.

    Raises:
        RequestError: if there is no such request.
        StoreError: if the store cannot be used; so may every method.
    """

    def __init__(
        self,
        store: CoordinatorStore,
        lease: Lease,
        transport: Transport,
        timeout: float,
        say: Say,
        *,
        resend: bool = False,
        repeated: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.store = store
        self.lease = lease
        self.resend = resend
        self.repeated = repeated
        with store.reading() as db:
            driven = find_driven(db, lease.request_id, None)
            request = find_request(db, lease.request_id)
            roots = [root.model_id for root in request.roots]
            self.part = read_descendants(db, roots)
            super().__init__(transport, timeout, say, request, self.part.graph())
            if driven.campaign.state.advances:
                self.packets = find_packets(db, lease.request_id)
                if not all(root in self.packets for root in roots):
                    self.registered = find_planned_roots(db, lease.request_id)
            self.older = find_older(db, driven.campaign, CampaignState.RUNNING)
        self.campaign, self._lost = driven.campaign, driven.lost
        self.tasks = dict(driven.tasks)
        self._before = driven.tasks
        self._changes = driven.changes
        self._fresh = True
        self.plan = Plan((), (), {}, {}, ())
        self.late: Sequence[str] = ()
        self.left: Sequence[Task] = ()
        self.todo: dict[str, Task] = {}
        self.attempted: set[str] = set()
        self.timing = Timing()
        self.changed: list[str] = []
        self.already: list[str] = []

    @property
    def advances(self) -> bool:
        """Whether the campaign was running at the last transaction."""
        return self.campaign.state.advances and not self._lost

    def goes_on(self) -> bool:
        """Return whether the campaign is running, as of the last answer or later."""
        if not self._fresh:
            self.look()
        return self.advances

    def look(self, models: Collection[str] | None = ()) -> None:
        """Read the campaign's state again.

        Args:
            models: models whose tasks are read, too; `None` for all.
        """
        with self.store.reading() as db:
            known = Known(self.tasks, self._changes)
            driven = find_driven(db, self.request.id, models, known)
        self._saw(driven, models is None)

    def ask(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        """Send messages to owners, all at once, and yield their answers as they arrive."""
        self._fresh = False
        for answer in super().ask(asks):
            self._fresh = False
            yield answer

    @contextmanager
    def writing(self, models: Collection[str] | None = ()) -> Iterator[Change]:
        """Begin a transaction that writes.

        Args:
            models: models whose tasks it changes; `None` for all.

        Raises:
            StoreError: if the lease was lost; nothing is stored then.
        """
        known = Known(self.tasks, self._changes)
        with changing(self.store, self.request.id, models, self.lease, self.graph, known) as change:
            self._saw(change.driven, models is None)
            yield change
        self.tasks.update(change.tasks)
        if change.driven.changes == self._changes:
            self._changes = change.changes

    def put(self, tasks: Iterable[Task]) -> None:
        """Store the tasks that changed, if any."""
        new = [task for task in tasks if task != self.tasks.get(task.model_id)]
        if new:
            with self.writing([task.model_id for task in new]) as change:
                change.put(new)

    def known_packets(self, root: str) -> Sequence[pb.FisherPacket]:
        """Return a root's stored answer with its tensors.

        Raises:
            CheckpointError: if a file of them is missing or damaged.
        """
        files = self.store.packet_files
        packets = []
        for described in self.packets.get(root, ()):
            packet = pb.FisherPacket()
            packet.CopyFrom(described)
            packet.tensors = files.read(packet.digest)
            packets.append(packet)
        return packets

    def is_current(self, root: str, packet: pb.FisherPacket) -> bool:
        """Return whether a root's stored answer is still of the root as it is.

        A change starts from the weights of one version.  If another request has taken its place
        before the root could take the change, the root is asked for another one.
        """
        if not packet.HasField("delta") or packet.delta.repeats:
            return True
        line = root_line(self.graph, self.graph.model(root))
        for version in line:
            task = self.tasks.get(version.id)
            if task is not None and task.successor is not None and not task.state.undone:
                return True  # it is applied to the root
        active = [one for one in line if one.status is ModelStatus.ACTIVE]
        return not active or packet.delta.before in {one.digest for one in active}

    def made_of(self, versions: Collection[str]) -> Sequence[tuple[str, Task]]:
        """Return (request, task) of all tasks by which a successor was made of some versions."""
        if not versions:
            return ()
        with self.store.reading() as db:
            return find_made_of(db, versions)

    def keep(self, owner: str, answered: Mapping[str, Sequence[pb.FisherPacket]]) -> None:
        """Store the answers of an owner's roots durably."""
        if not answered:
            return
        files = self.store.packet_files
        for packet in (packet for packets in answered.values() for packet in packets):
            files.write(packet.tensors, packet.digest)
        with self.writing() as change:
            change.put_packets(answered)
            change.notified(owner, answered)
        for root, packets in answered.items():
            self.packets[root] = [without_tensors(packet) for packet in packets]

    def discard(self, roots: Collection[str]) -> None:
        """Drop the unusable answers of roots, so that they are asked again."""
        with self.writing() as change:
            change.put_packets(dict.fromkeys(roots, ()))
        for root in roots:
            self.packets.pop(root, None)

    @property
    def may_destroy(self) -> bool:
        """Whether old versions may be due to be destroyed, and owners may be asked."""
        retains = self.request.retention_seconds > 0
        return retains and not self.campaign.state.stopped and not self._lost

    def settle(self) -> bool:
        """Derive the campaign's state from its tasks, unless a person stopped it.

        Returns:
            Whether versions may be due to be destroyed; if not, the lease is given back.
        """
        with self.writing(None) as change:
            campaign = settle(change.db, change.driven, self.request)
            self.campaign = campaign
            goes_on = self.may_destroy
            if not goes_on:
                release(change.db, self.lease)
        if not goes_on:
            self.lease.ended.set()
        return goes_on

    def result(self) -> CampaignResult:
        """Return the result of the pass."""
        earlier = [
            model
            for model, task in self._before.items()
            if task.successor is not None and model not in self.attempted
        ]
        return CampaignResult(
            self.request.id,
            dict(self.tasks),
            self.timing,
            changed=tuple(self.changed),
            already_applied=(*earlier, *self.already),
        )

    def _saw(self, driven: Driven, everything: bool) -> None:
        self.campaign, self._lost, self._fresh = driven.campaign, driven.lost, True
        if driven.changes == self._changes:
            return
        if everything:
            self.tasks, self._changes = dict(driven.tasks), driven.changes
        else:  # the others may have changed, too
            self.tasks.update(driven.tasks)
