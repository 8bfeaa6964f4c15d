"""Packets that roots answered, kept so that no root is asked twice: rows, and files of tensors.

The database has all of a packet but its tensors.  These are safetensors files in a folder, or at
any fsspec URL, named by their SHA-256 and checked against it when read.  A file that was not
written completely counts as missing.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from sqlalchemy import Connection, bindparam, delete, insert, select

from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.files import TEMPORARY_GLOB, FolderLock, write_atomic
from disinherit.common.wire.messages import without_tensors
from disinherit.server.now import now_us
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import PACKETS, parse
from disinherit.v1.unlearning_pb2 import FisherPacket

_ANSWERED = Query(
    select(PACKETS.c.request_id, PACKETS.c.root)
    .distinct()
    .where(PACKETS.c.request_id.in_(bindparam("requests", expanding=True)))
)
_PACKETS = Query(
    select(PACKETS)
    .where(PACKETS.c.request_id == bindparam("request"))
    .order_by(PACKETS.c.root, PACKETS.c.position)
)


class PacketFiles(Protocol):
    """Contents, addressed by their SHA-256."""

    def any(self) -> bool:
        """Return whether there is any content.

        Raises:
            StoreError: if it cannot be reached.
        """
        ...

    def write(self, data: bytes, digest: str) -> None:
        """Store content durably.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest does not match, or the content cannot be written.
        """
        ...

    def read(self, digest: str) -> bytes:
        """Return the content with this SHA-256.

        Raises:
            CheckpointError: if it is missing or damaged.
            StoreError: if it cannot be reached.
        """
        ...


def open_packet_files(where: str | Path) -> PacketFiles:
    """Open the files in a folder, or at an fsspec URL such as `s3://bucket/packets`.

    Args:
        where: the folder or URL; created by the first write.

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
    """Contents in a local folder, each written atomically.

    Several processes may use it.  A process holds the file `lock` in it while it writes, or removes
    the unfinished files of a killed process.

    Args:
        folder: the folder; created by the first write.

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
        """Return whether there is any content."""
        return any(self._folder.glob("*.safetensors"))

    def path(self, digest: str) -> Path:
        """Return the path of the content with this SHA-256, which need not exist."""
        return self._folder / _file_name(digest)

    def write(self, data: bytes, digest: str) -> None:
        """Store content; it survives a loss of power once this returns.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest does not match, or the content cannot be written.
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
            with self._lock.held(exclusive=True):  # all writers have finished by then
                for path in unfinished:
                    path.unlink(missing_ok=True)


class PacketUrl:
    """Contents at a URL, through the fsspec package for its scheme.

    Object stores write atomically.  Elsewhere a killed process may leave a truncated file, whose
    digest does not match; it is written again.

    Args:
        url: such as `s3://bucket/packets`; the package finds its credentials itself.

    Raises:
        StoreError: if the package is missing, or refuses the URL.
    """

    def __init__(self, url: str) -> None:
        # Imported here because few coordinators need it.
        import fsspec

        try:
            self._files, root = fsspec.url_to_fs(url)
        except Exception as error:  # each package raises its own
            raise StoreError(
                f"Expected a URL that fsspec can open for Fisher packets, with scheme "
                f"{urlsplit(url).scheme!r}, but: {error}."
            ) from error
        self._root = root.rstrip("/")
        self._name = self._files.unstrip_protocol(self._root)  # without any password

    def any(self) -> bool:
        """Return whether there is any content.

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
        """Store content.

        Args:
            data: the content.
            digest: its SHA-256.

        Raises:
            StoreError: if the digest does not match, or the content cannot be written.
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
            f"Expected the content of {where} to have the digest in its name, but its bytes have "
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
    """Store the packets that roots answered, and replace their earlier ones."""
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


def find_answered(db: Connection, requests: Collection[str]) -> dict[str, frozenset[str]]:
    """Return request -> its roots that have answered, without their packets."""
    found: dict[str, set[str]] = {}
    for row in _ANSWERED.all(db, {"requests": list(requests)}):
        found.setdefault(row.request_id, set()).add(row.root)
    return {request_id: frozenset(roots) for request_id, roots in found.items()}


def find_packets(db: Connection, request_id: str) -> dict[str, list[FisherPacket]]:
    """Return root -> the packets that it answered, without their tensors."""
    found: dict[str, list[FisherPacket]] = {}
    for row in _PACKETS.all(db, {"request": request_id}):
        found.setdefault(row.root, []).append(parse(FisherPacket, row.packet))
    return found
