"""Contents addressed by their SHA-256, in a folder and at fsspec URLs."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from disinherit.common.errors import CheckpointError, StoreError
from disinherit.server.store.packets import PacketFiles, PacketFolder, PacketUrl, open_packet_files

DATA = b"tensors"
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = f"{DIGEST}.safetensors"

Place = tuple[Callable[[], PacketFiles], Callable[[bytes], None]]
"""Opens a place for packets, and writes what shall be found in the place of `DATA`."""


@pytest.fixture(params=["folder", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        url = f"memory://{uuid.uuid4()}/packets"
        files, root = fsspec.url_to_fs(url)
        return lambda: open_packet_files(url), lambda data: files.pipe_file(f"{root}/{NAME}", data)
    folder = tmp_path / "new"
    where = folder if request.param == "folder" else f"file://{folder}"
    return lambda: open_packet_files(where), lambda data: write(folder / NAME, data)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_content_is_found_by_its_digest_after_opening_again(place: Place) -> None:
    again, _ = place
    assert not again().any()
    again().write(DATA, DIGEST)
    again().write(DATA, DIGEST)
    assert again().read(DIGEST) == DATA
    assert again().any()


def test_content_under_another_digest_is_refused_and_not_written(place: Place) -> None:
    again, _ = place
    with pytest.raises(StoreError, match="0a0a"):
        again().write(DATA, "0a" * 32)
    assert not again().any()


def test_missing_and_damaged_content_is_reported_and_can_be_rewritten(place: Place) -> None:
    again, replace = place
    files = again()
    with pytest.raises(CheckpointError, match="asked for it again"):
        files.read(DIGEST)
    files.write(DATA, DIGEST)
    replace(DATA[:3])  # as where a process was killed
    with pytest.raises(CheckpointError, match="the digest in its name"):
        files.read(DIGEST)
    files.write(DATA, DIGEST)
    assert files.read(DIGEST) == DATA


def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_else(tmp_path: Path) -> None:
    PacketFolder(tmp_path).write(DATA, DIGEST)
    (tmp_path / "README").touch()
    kept = set(tmp_path.iterdir())
    (tmp_path / ".disinherit-0a.tmp").touch()
    assert PacketFolder(tmp_path).read(DIGEST) == DATA
    assert set(tmp_path.iterdir()) == kept


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="Expected to store a Fisher packet"):
        PacketFolder(tmp_path / "file").write(DATA, DIGEST)


def test_a_file_url_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    open_packet_files(f"file://{tmp_path}").write(DATA, DIGEST)
    assert PacketFolder(tmp_path).read(DIGEST) == DATA


def test_a_url_that_nobody_can_open_is_refused() -> None:
    with pytest.raises(StoreError, match="'teleport'.*known"):
        open_packet_files("teleport://bucket")


def test_a_place_that_cannot_be_reached_is_not_taken_for_one_without_the_packet(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    files = PacketUrl(f"file://{tmp_path}/file/packets")
    for call in (
        lambda: files.read(DIGEST),
        lambda: files.write(DATA, DIGEST),
    ):
        with pytest.raises(StoreError, match=f"reach the Fisher packets at file://{tmp_path}/file"):
            call()
