"""What roots answered a request with, from one pass over a campaign to the next."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from disinherit.common.graph.records import ModelRecord
from disinherit.server.store.leases import Lease
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1.unlearning_pb2 import FisherPacket


class Archive(Protocol):
    """Remembers roots' answers; those it has are not asked for again."""

    def load(self) -> Mapping[str, Sequence[FisherPacket]]:
        """Return root -> its packets, for the roots that have answered."""
        ...

    def registered(self) -> Mapping[str, ModelRecord]:
        """Return root -> its record as it was when the request was submitted, where known."""
        ...

    def keep(self, root: str, packets: Sequence[FisherPacket]) -> None:
        """Remember what a root answered, and was found sound; when this returns, it is durable."""
        ...

    def forget(self, roots: Sequence[str]) -> None:
        """Have these roots asked again, since what they answered is of no use."""
        ...


class NoArchive:
    """Remembers nothing: every root is asked."""

    def load(self) -> Mapping[str, Sequence[FisherPacket]]:
        """Return nothing."""
        return {}

    def registered(self) -> Mapping[str, ModelRecord]:
        """Return nothing."""
        return {}

    def keep(self, root: str, packets: Sequence[FisherPacket]) -> None:
        """Do nothing."""

    def forget(self, roots: Sequence[str]) -> None:
        """Do nothing."""


class StoredArchive:
    """Remembers the answers to one request in the store.

    Args:
        store: the store.
        lease: that of the pass over the request's campaign.
    """

    def __init__(self, store: CoordinatorStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    def load(self) -> Mapping[str, Sequence[FisherPacket]]:
        """Return root -> its packets, for the roots whose answers are complete and sound.

        Raises:
            StoreError: if the store has no folder for packets.
        """
        return self._store.packets(self._lease.request_id)

    def registered(self) -> Mapping[str, ModelRecord]:
        """Return root -> its record as it was when the request was submitted."""
        return self._store.planned_roots(self._lease.request_id)

    def keep(self, root: str, packets: Sequence[FisherPacket]) -> None:
        """Store what a root answered.

        Raises:
            StoreError: if it cannot be stored.
        """
        self._save(root, packets)

    def forget(self, roots: Sequence[str]) -> None:
        """Have these roots asked again."""
        for root in roots:
            self._save(root, [])

    def _save(self, root: str, packets: Sequence[FisherPacket]) -> None:
        self._store.save_packets(self._lease.request_id, root, packets, lease=self._lease)
