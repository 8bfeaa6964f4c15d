"""Packets: tensors in a folder, or any place that fsspec can name, and their rows.

Contents are safetensors files named by their SHA-256, and checked against it when they are read:
one that was not written to its end is as good as not there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, insert, select

from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.files import TEMPORARY_GLOB, FolderLock, write_atomic
from disinherit.server.store.tables import PACKETS, now_us, parse
from disinherit.v1.unlearning_pb2 import FisherPacket


class PacketFiles(Protocol):
    """Contents that are found by their SHA-256."""

    def any(self) -> bool:
        """Return whether there is anything.

        Raises:
            StoreError: if nobody can say.
        """
        ...

    def write(self, data: bytes, digest: str) -> None:
        """Keep content; when this returns, it stays.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest is another one, or the content cannot be written.
        """
        ...

    def read(self, digest: str) -> bytes:
        """Return the content with this SHA-256.

        Raises:
            CheckpointError: if it is missing or damaged.
            StoreError: if it cannot be reached now.
        """
        ...


def open_packet_files(where: str | Path) -> PacketFiles:
    """Open the files of a folder, or at an fsspec URL such as `s3://bucket/packets`.

    Args:
        where: which; made when the first one is written.

    Raises:
        StoreError: if it cannot be used.
    """
    if isinstance(where, str) and "://" in where:
        url = urlsplit(where)
        if url.scheme not in ("file", "local"):
            return PacketUrl(where)
        where = url.netloc + url.path
    return PacketFolder(Path(where))


class PacketFolder:
    """Contents in a folder of this machine, each written completely or not at all.

    Several processes may have it open: `lock` in it is held while one of them writes, and to remove
    what one that was killed left unfinished.

    Args:
        folder: made when the first one is written.

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
        return self._folder / _file_name(digest)

    def write(self, data: bytes, digest: str) -> None:
        """Keep content; when this returns, it survives a loss of power.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest is another one, or the content cannot be written.
        """
        _check_to_store(data, digest)
        try:
            if _holds(self, digest):
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
        return _checked(data, digest, str(self.path(digest)))

    def _remove_unfinished(self) -> None:
        unfinished = list(self._folder.glob(TEMPORARY_GLOB))
        if unfinished:
            with self._lock.held(exclusive=True):  # who is still writing has finished then
                for path in unfinished:
                    path.unlink(missing_ok=True)


class PacketUrl:
    """Contents at a URL, reached by the package that fsspec names for its scheme.

    What object stores take in is complete or not there.  On others, a process that is killed may
    leave a file that is cut off: it is no content with its digest, and is written anew.

    Args:
        url: such as `s3://bucket/packets`; who may use it, the package finds out in its own way.

    Raises:
        StoreError: if there is no package for it, or no such place can be meant.
    """

    def __init__(self, url: str) -> None:
        # Imported here because hardly anybody needs it.
        import fsspec

        try:
            self._files, root = fsspec.url_to_fs(url)
        except Exception as error:  # which ones, each package decides for itself
            raise StoreError(
                f"Expected a URL that fsspec can open for Fisher packets, with scheme "
                f"{urlsplit(url).scheme!r}, but: {error}."
            ) from error
        self._root = root.rstrip("/")
        self._name = self._files.unstrip_protocol(self._root)  # without a password, if there is one

    def any(self) -> bool:
        """Return whether there is anything.

        Raises:
            StoreError: if it cannot be reached.
        """
        try:
            names = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._unreachable(error) from error
        return any(str(name).endswith(".safetensors") for name in names)

    def write(self, data: bytes, digest: str) -> None:
        """Keep content.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest is another one, or the content cannot be written.
        """
        _check_to_store(data, digest)
        if _holds(self, digest):
            return
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._path(digest), data)
        except Exception as error:
            raise self._unreachable(error) from error

    def read(self, digest: str) -> bytes:
        """Return the content with this SHA-256.

        Raises:
            CheckpointError: if it is missing or damaged.
            StoreError: if it cannot be reached.
        """
        name = f"{self._name}/{_file_name(digest)}"
        try:
            data: Any = self._files.cat_file(self._path(digest))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"Expected the Fisher packet {name}, but there is none. Its owner must be asked "
                "for it again."
            ) from error
        except Exception as error:
            raise self._unreachable(error) from error
        return _checked(data, digest, name)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{_file_name(digest)}"

    def _unreachable(self, error: Exception) -> StoreError:
        return StoreError(
            f"Expected to reach the Fisher packets at {self._name}, but: "
            f"{type(error).__name__}: {error}."
        )


def _file_name(digest: str) -> str:
    return f"{digest}.safetensors"


def _check_to_store(data: bytes, digest: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise StoreError(
            f"Expected content of digest {digest!r} to store, but its bytes have {found}."
        )


def _checked(data: bytes, digest: str, where: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CheckpointError(
            f"Expected the content of {where} to be what its name says, but its bytes have digest "
            f"{found}. Its owner must be asked for it again."
        )
    return data


def _holds(files: PacketFiles, digest: str) -> bool:
    try:
        files.read(digest)
    except CheckpointError:
        return False
    return True


def put_packets(
    db: Connection, request_id: str, answered: Mapping[str, Sequence[FisherPacket]]
) -> None:
    """Note what roots answered, in the place of what they answered before."""
    here = (PACKETS.c.request_id == request_id, PACKETS.c.root.in_(answered))
    db.execute(delete(PACKETS).where(*here))
    rows = [
        {
            "request_id": request_id,
            "root": root,
            "position": position,
            "digest": packet.digest,
            "packet": without_tensors(packet).SerializeToString(deterministic=True),
            "created_us": now_us(),
        }
        for root, packets in answered.items()
        for position, packet in enumerate(packets)
    ]
    if rows:
        db.execute(insert(PACKETS), rows)


def without_tensors(packet: FisherPacket) -> FisherPacket:
    """Return all of a packet but its tensors."""
    described = FisherPacket()
    described.CopyFrom(packet)
    described.ClearField("tensors")
    return described


def find_packets(db: Connection, request_id: str) -> dict[str, list[FisherPacket]]:
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
