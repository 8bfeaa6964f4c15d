"""One pass without a campaign: what it knows, what roots answered, and what is ready to be sent."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord
from disinherit.server.planning.plan import Group
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb

if TYPE_CHECKING:
    from disinherit.common.wire.packets import PackedFisher

Say = Callable[[str], None]


@dataclass(slots=True)
class Prepared:
    """What is ready to be sent.

    Attributes:
        messages: owner -> its models and the merged Fishers they need, without their tensors.
        tensors: SHA-256 -> tensors of a merged Fisher: one for all owners that it is for.
        failed: model -> why there is nothing for it.
        waiting: model -> which root's owner could not be reached; a later try may succeed.
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
        """Return the messages, to be sent.

        Args:
            action: what is asked with them.
        """
        return [
            Ask(owner, action, task, {f.digest: self.tensors[f.digest] for f in task.fishers})
            for owner, task in self.messages.items()
        ]


@dataclass(slots=True)
class Collected:
    """What the roots' owners answered.

    Attributes:
        fishers: root -> what it sent, one for each class, or one for all samples.
        errors: root -> why there are none.
        unreachable: roots among those with an error whose owners may answer later.
        withheld: roots whose owners' release policies forbid it.
    """

    fishers: dict[str, Sequence["PackedFisher"]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    withheld: set[str] = field(default_factory=set)

    def reason(self, root: ModelRecord, owner: str) -> str:
        """Return why there is none of a root, as an owner of its heirs may read it.

        What a root's owner answered is for itself and for those who may see all coverage: its own
        models say it.  The owners of others get to know that there is nothing, and no word of it.
        """
        if owner == root.owner or root.id in self.unreachable:
            return self.errors[root.id]
        if root.id in self.withheld:
            return f"withheld by owner {root.owner}"
        return f"owner {root.owner} cannot give it; the coverage of {root.id} says why"


class DryPass:
    """A pass that collects and merges for some models, and neither stores nor changes anything.

    Args:
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: gets what is happening, for people to read.
        request: the request.
        graph: the part of the inheritance graph that descends from its roots.

    Attributes:
        groups: the models to prepare for, as planned.
        packets: root -> what it answered before, without the tensors.
        registered: root -> its record as it was when the request was submitted, where known.
        collected: what the roots' owners answered; emptied once it is merged.
        prepared: the messages that came of it.
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

    def ask(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        """Send messages to owners, all at once, and yield their answers as they arrive."""
        yield from self.transport.ask(asks, self.timeout)

    def bound_by(self, root: str) -> ModelRecord:
        """Return what bounds the answer of a root: its record, first and last."""
        return bound_by(self.graph.model(root), self.registered.get(root))

    def goes_on(self) -> bool:
        """Return whether owners may be asked for more."""
        return True

    def known_packets(self, root: str) -> Sequence[pb.FisherPacket]:
        """Return what a root answered before, with its tensors; nothing if it is to be asked."""
        return ()

    def keep(self, owner: str, answered: Mapping[str, Sequence[pb.FisherPacket]]) -> None:
        """Have what an owner's roots answered and was found sound outlive the pass."""

    def discard(self, roots: Collection[str]) -> None:
        """Have roots asked again, as what they answered is of no use."""


def bound_by(record: ModelRecord, before: ModelRecord | None) -> ModelRecord:
    """Return a root with what its owner had said of it before it knew of the request.

    Args:
        record: the root as it is registered now.
        before: as it was when the request was submitted; `None` if that is not known.
    """
    if before is None or before.fisher_scale is None:
        return record
    return replace(record, fisher_scale=before.fisher_scale, provenance=before.provenance)
