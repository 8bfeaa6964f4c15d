"""Changes of a campaign, each in a transaction of its own, as a pass makes them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from disinherit.common.errors import CheckpointError
from disinherit.server.campaign.changes import changing
from disinherit.server.states import Answered, Task
from disinherit.server.store.campaigns import Campaign, find_driven
from disinherit.server.store.leases import Lease
from disinherit.server.store.packets import find_packets
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.transitions import settle
from disinherit.v1.unlearning_pb2 import FisherPacket

P = ParamSpec("P")
T = TypeVar("T")


def update_all(
    store: CoordinatorStore, request_id: str, tasks: Iterable[Task], lease: Lease | None = None
) -> None:
    """Change several tasks."""
    tasks = list(tasks)
    with changing(store, request_id, [task.model_id for task in tasks], lease) as change:
        change.put(tasks)


def update_answered(
    store: CoordinatorStore,
    request_id: str,
    answered: Sequence[Answered],
    lease: Lease | None = None,
) -> Mapping[str, str]:
    """Store what an owner answered of several models, and return why some of it is refused."""
    with changing(store, request_id, [one.task.model_id for one in answered], lease) as change:
        return change.put_answered(answered)


def save_packets(
    store: CoordinatorStore,
    request_id: str,
    root: str,
    packets: Sequence[FisherPacket],
    lease: Lease | None = None,
) -> None:
    """Store what a root answered."""
    for packet in packets:
        store.packet_files.write(packet.tensors, packet.digest)
    with changing(store, request_id, (), lease) as change:
        change.put_packets({root: packets})


def kept_packets(store: CoordinatorStore, request_id: str) -> dict[str, list[FisherPacket]]:
    """Return root -> what it answered, of roots all of which is sound on disk."""
    files = store.packet_files
    with store.reading() as db:
        found = find_packets(db, request_id)
    kept = {}
    for root, packets in found.items():
        try:
            for packet in packets:
                packet.tensors = files.read(packet.digest)
        except CheckpointError:
            continue
        kept[root] = packets
    return kept


def settle_campaign(
    store: CoordinatorStore, request_id: str, lease: Lease | None = None
) -> Campaign:
    """Bring a campaign's state in line with its tasks."""
    with store.writing(lease) as db:
        driven = find_driven(db, request_id, None)
        return settle(db, driven, find_request(db, request_id))


def look(
    store: CoordinatorStore,
    find: Callable[Concatenate[Connection, P], T],
    *values: P.args,
    **named: P.kwargs,
) -> T:
    """Return what a function finds in a transaction that only reads."""
    with store.reading() as db:
        return find(db, *values, **named)
