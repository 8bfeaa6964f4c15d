"""A dry pass: a request, its roots' answers, and the messages to send, without a campaign."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord
from disinherit.server.planning.plan import Group
from disinherit.server.states import Task
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

if TYPE_CHECKING:
    from disinherit.common.wire.packets import PackedFisher

Say = Callable[[str], None]


@dataclass(slots=True)
class Prepared:
    """Messages ready to be sent.

    Attributes:
        messages: owner -> its models and the merged Fishers, or the changes of roots, that they
            need, without their tensors.
        tensors: SHA-256 -> tensors of a packet, shared by all its owners.
        failed: model -> why it gets no packet.
        waiting: model -> the roots whose owners are unreachable, so that a later pass may succeed.
        fisher_seconds: time until all roots had answered.
        merge_seconds: time to merge and address.
    """

    messages: dict[str, pb.UnlearnTask] = field(default_factory=dict)
    tensors: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    fisher_seconds: float = 0.0
    merge_seconds: float = 0.0

    def asks(self, action: str) -> list[Ask]:
        """Return the messages for a transport.

        Args:
            action: one of `disinherit.common.wire.messages.ACTIONS`.
        """
        return [
            Ask(owner, action, task, {f.digest: self.tensors[f.digest] for f in task.fishers})
            for owner, task in self.messages.items()
        ]


@dataclass(slots=True)
class Collected:
    """The answers of the roots' owners.

    Attributes:
        fishers: root -> its Fishers, one for each class, or one for all samples.
        deltas: root -> the packet of its change.
        errors: root -> why it has none of either.
        unreachable: roots with an error whose owners may answer later.
        withheld: roots whose owners' release policies forbid an answer.
        alone: root -> packet without values, of withheld changes: the root takes its new weights.
    """

    fishers: dict[str, Sequence["PackedFisher"]] = field(default_factory=dict)
    deltas: dict[str, pb.FisherPacket] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    withheld: set[str] = field(default_factory=set)
    alone: dict[str, pb.FisherPacket] = field(default_factory=dict)

    def reason(self, root: ModelRecord, owner: str, where: str) -> str:
        """Return why a root has no packet, in words for an owner of its descendants.

        Only the root's owner, and readers of all coverage, may see that owner's message.  Other
        owners learn only that there is none.

        Args:
            root: the root.
            owner: the owner of its descendants.
            where: what has the message for those who may see it.
        """
        if owner == root.owner or root.id in self.unreachable:
            return self.errors[root.id]
        if root.id in self.withheld:
            return f"withheld by owner {root.owner}"
        return f"owner {root.owner} cannot give it; {where} says why"


class DryPass:
    """A pass that collects and merges for some models, and neither stores nor changes anything.

    Args:
        transport: the connection to the owners.
        timeout: seconds to wait for an owner's answer.
        say: receives progress messages for people.
        request: the request.
        graph: the descendants of its roots in the inheritance graph.

    Attributes:
        groups: the planned groups of models to prepare for.
        packets: root -> its stored answer, without the tensors.
        registered: root -> its record at the submission of the request, if known.
        collected: the answers of the roots' owners; emptied by the merge.
        prepared: the resulting messages.
    """

    def __init__(
        self,
        transport: Transport,
        timeout: float,
        say: Say,
        request: pb.UnlearningRequest,
        graph: InheritanceGraph,
    ) -> None:
        self.transport = transport
        self.timeout = timeout
        self.say = say
        self.request = request
        self.graph = graph
        self.groups: Sequence[Group] = ()
        self.packets: dict[str, list[pb.FisherPacket]] = {}
        self.registered: Mapping[str, ModelRecord] = {}
        self.collected = Collected()
        self.prepared = Prepared()

    @property
    def inherits_delta(self) -> bool:
        """Whether descendants inherit the changes of roots, not Fisher information."""
        return self.request.method.mechanism == "delta"

    def ask(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        """Send messages to owners, all at once, and yield their answers as they arrive."""
        yield from self.transport.ask(asks, self.timeout)

    def bound_by(self, root: str) -> ModelRecord:
        """Return the record whose scale bounds the answer of a root (`bound_by`)."""
        return bound_by(self.graph.model(root), self.registered.get(root))

    def goes_on(self) -> bool:
        """Return whether owners may be asked for more."""
        return True

    def known_packets(self, root: str) -> Sequence[pb.FisherPacket]:
        """Return a root's stored answer with its tensors; empty if the root must be asked."""
        return ()

    def is_current(self, root: str, packet: pb.FisherPacket) -> bool:
        """Return whether a root's stored answer is still of the root as it is."""
        return True

    def made_of(self, versions: Collection[str]) -> Sequence[tuple[str, Task]]:
        """Return (request, task) of all tasks by which a successor was made of some versions."""
        return ()

    def keep(self, owner: str, answered: Mapping[str, Sequence[pb.FisherPacket]]) -> None:
        """Store the checked answers of an owner's roots."""

    def discard(self, roots: Collection[str]) -> None:
        """Drop the unusable answers of roots, so that they are asked again."""


def bound_by(record: ModelRecord, before: ModelRecord | None) -> ModelRecord:
    """Return a root's record with the scale and provenance registered before the request was known.

    Args:
        record: the present record.
        before: the record at the submission of the request; `None` if unknown.
    """
    if before is None or before.fisher_scale is None:
        return record
    return replace(record, fisher_scale=before.fisher_scale, provenance=before.provenance)
