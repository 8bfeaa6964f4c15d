"""Downloads: resumed, verified, and within the free space."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.agent.download import Downloads
from disinherit.common.errors import CheckpointError, StoreError
from disinherit.v1 import agents_pb2 as pb

DATA = bytes(range(250))
DIGEST = hashlib.sha256(DATA).hexdigest()


class Source:
    """Sends data in pieces of 100 bytes, and may stop early."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.offsets: list[int] = []
        self.breaks_after = 100

    def fetch(self, digest: str, offset: int) -> Iterator[pb.Chunk]:
        self.offsets.append(offset)
        if digest != DIGEST or offset > len(self.data):
            raise CheckpointError("no such blob, or it is shorter")
        for count, start in enumerate(range(offset, max(offset + 1, len(self.data)), 100)):
            if count == self.breaks_after:
                raise KeyboardInterrupt
            yield pb.Chunk(data=self.data[start : start + 100], total=len(self.data))


def test_a_complete_download_is_not_fetched_again(tmp_path: Path) -> None:
    source = Source()
    assert Downloads(tmp_path, source.fetch).get(DIGEST) == DATA
    assert Downloads(tmp_path, source.fetch).get(DIGEST) == DATA
    assert source.offsets == [0]


@pytest.mark.parametrize("breaks_after", [1, 2])
def test_an_interrupted_download_is_resumed(breaks_after: int, tmp_path: Path) -> None:
    source = Source()
    source.breaks_after = breaks_after
    with pytest.raises(KeyboardInterrupt):
        Downloads(tmp_path, source.fetch).get(DIGEST)
    source.breaks_after = 100
    assert Downloads(tmp_path, source.fetch).get(DIGEST) == DATA
    assert source.offsets == [0, 100 * breaks_after]


@pytest.mark.parametrize("before", [b"\0" * 100, b"\0" * 250, b"\0" * 300], ids=len)
def test_a_part_damaged_by_power_loss_is_fetched_again(before: bytes, tmp_path: Path) -> None:
    source = Source()
    (tmp_path / f"{DIGEST}.part").write_bytes(before)
    assert Downloads(tmp_path, source.fetch).get(DIGEST) == DATA
    assert source.offsets == [len(before), 0]


def test_a_damaged_complete_download_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / DIGEST).write_bytes(b"damaged")
    assert Downloads(tmp_path, Source().fetch).get(DIGEST) == DATA


def test_content_with_another_hash_is_refused_and_removed(tmp_path: Path) -> None:
    source = Source(DATA[:-1] + b"x")
    with pytest.raises(CheckpointError, match="sends something else"):
        Downloads(tmp_path, source.fetch).get(DIGEST)
    assert source.offsets == [0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64, "0" * 63])
def test_a_malformed_hash_becomes_no_file(digest: str, tmp_path: Path) -> None:
    source = Source()
    with pytest.raises(CheckpointError, match="SHA-256"):
        Downloads(tmp_path, source.fetch).get(digest)
    assert source.offsets == []


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=249)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StoreError, match="room for 250 bytes"):
        Downloads(tmp_path, Source().fetch).get(DIGEST)


def test_an_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can be written to"):
        Downloads(tmp_path / "file" / "downloads", Source().fetch)


def test_unneeded_downloads_are_removed(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path, Source().fetch)
    downloads.get(DIGEST)
    (tmp_path / f"{'0' * 64}.part").touch()
    (tmp_path / f"{'1' * 64}.part").touch()
    downloads.keep_only({"1" * 64})
    assert [path.name for path in tmp_path.iterdir()] == [f"{'1' * 64}.part"]
