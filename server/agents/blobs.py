"""Fisher packets for download, by content hash, for the owners they are addressed to."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from disinherit.common.errors import NotOnOfferError, OffsetError
from disinherit.v1 import agents_pb2 as pb

CHUNK_BYTES = 64 * 1024


class Blobs:
    """Blobs in memory; each is kept while it is offered to an owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._data: dict[str, bytes] = {}
        self._offers: Counter[tuple[str, str]] = Counter()
        self._holders: Counter[str] = Counter()

    @contextmanager
    def offered(self, owner: str, blobs: Mapping[str, bytes]) -> Iterator[None]:
        """Offer blobs to an owner during the block.

        Args:
            owner: the owner that may fetch them.
            blobs: SHA-256 -> content.
        """
        with self._lock:
            for digest, data in blobs.items():
                self._data.setdefault(digest, data)
                self._offers[owner, digest] += 1
                self._holders[digest] += 1
        try:
            yield
        finally:
            with self._lock:
                for digest in blobs:
                    self._offers[owner, digest] -= 1
                    self._holders[digest] -= 1
                    if not self._offers[owner, digest]:
                        del self._offers[owner, digest]
                    if not self._holders[digest]:
                        del self._holders[digest], self._data[digest]

    def chunks(self, owner: str, digest: str, offset: int) -> Iterator[pb.Chunk]:
        """Yield a blob from an offset on, in chunks; at least one, which may be empty.

        Args:
            owner: the owner that downloads it.
            digest: SHA-256 of the blob.
            offset: bytes to skip.

        Raises:
            NotOnOfferError: if the blob is not on offer to the owner.
            OffsetError: if the blob is shorter than the offset.
        """
        with self._lock:
            data = self._data[digest] if self._offers[owner, digest] else None
        if data is None:
            raise NotOnOfferError(
                f"Expected the digest of a packet on offer to owner {owner}, but got {digest!r}. "
                "It is offered again with the next task."
            )
        if offset > len(data):
            raise OffsetError(
                f"Expected an offset up to {len(data)}, the length of {digest}, but got {offset}."
            )
        for start in range(offset, max(len(data), offset + 1), CHUNK_BYTES):
            yield pb.Chunk(data=data[start : start + CHUNK_BYTES], total=len(data))
