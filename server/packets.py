"""Fisher packets that roots answered with, kept so that no root is asked again.

Their tensors are safetensors files named by their SHA-256; the database has the rest.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from disinherit.common.checkpoints import TEMPORARY_GLOB, write_atomic
from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.folder_lock import FolderLock
from disinherit.server.tables import PACKETS, now_us, parse
from disinherit.v1.unlearning_pb2 import FisherPacket


class PacketStore:
    """Files named by the SHA-256 of their content, in one folder.

    Several processes may have it open: `lock` in it is held while one of them writes, and to remove
    what one that was killed left unfinished.

    Args:
        folder: where they are; made when the first one is written.

    Raises:
        StoreError: if it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FolderLock(folder / "lock")
        try:
            self._remove_unfinished()
        except OSError as error:
            raise StoreError(f"Expected a folder for Fisher packets, but: {error}.") from error

    def any(self) -> bool:
        """Return whether there is anything in it."""
        return any(self._folder.glob("*.safetensors"))

    def path(self, digest: str) -> Path:
        """Return where the content with this SHA-256 is, if it is there."""
        return self._folder / f"{digest}.safetensors"

    def write(self, data: bytes, digest: str) -> None:
        """Keep content; when this returns, it survives a loss of power.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest is another one, or the content cannot be written.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise StoreError(
                f"Expected content of digest {digest!r} to store, but its bytes have {found}."
            )
        try:
            if self._holds(digest):
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock.held(exclusive=False):
                write_atomic(self.path(digest), data)
        except (CheckpointError, OSError) as error:
            raise StoreError(f"Expected to store a Fisher packet, but: {error}") from error

    def read(self, digest: str) -> bytes:
        """Return the content with this SHA-256.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"Expected the Fisher packet {self.path(digest)}, but: {error}. Its owner must be "
                "asked for it again."
            ) from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise CheckpointError(
                f"Expected the content of {self.path(digest)} to be what its name says, but its "
                f"bytes have digest {found}. Its owner must be asked for it again."
            )
        return data

    def _remove_unfinished(self) -> None:
        unfinished = list(self._folder.glob(TEMPORARY_GLOB))
        if unfinished:
            with self._lock.held(exclusive=True):  # who is still writing has finished then
                for path in unfinished:
                    path.unlink(missing_ok=True)

    def _holds(self, digest: str) -> bool:
        try:
            self.read(digest)
        except CheckpointError:
            return False
        return True


def put_packets(
    db: Connection, request_id: str, root: str, packets: Sequence[FisherPacket]
) -> None:
    """Note what a root answered, in the place of what it answered before."""
    db.execute(delete(PACKETS).where(PACKETS.c.request_id == request_id, PACKETS.c.root == root))
    for position, packet in enumerate(packets):
        described = FisherPacket()
        described.CopyFrom(packet)
        described.ClearField("tensors")
        db.execute(
            insert(PACKETS).values(
                request_id=request_id,
                root=root,
                position=position,
                digest=packet.digest,
                packet=described.SerializeToString(deterministic=True),
                created_us=now_us(),
            )
        )


def find_packets(db: Connection, request_id: str) -> Mapping[str, list[FisherPacket]]:
    """Return root -> what it answered a request with, without the tensors."""
    found: dict[str, list[FisherPacket]] = {}
    query = (
        select(PACKETS)
        .where(PACKETS.c.request_id == request_id)
        .order_by(PACKETS.c.root, PACKETS.c.position)
    )
    for row in db.execute(query):
        found.setdefault(row.root, []).append(parse(FisherPacket, row.packet))
    return found
