"""Files: atomic with concurrent writers, and nothing is left behind."""

import os
import stat
import threading
from pathlib import Path

import pytest

from disinherit.common.errors import CheckpointError
from disinherit.common.files import TEMPORARY_GLOB, sync_folder, write_atomic, write_private


def test_the_file_of_a_killed_process_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "head"
    process = os.fork()
    if not process:
        monkeypatch.setattr(os, "fsync", lambda _: os._exit(1))
        write_private(path, b"a" * 1000)
    os.waitpid(process, 0)
    assert not path.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "head.tmp"]
    write_private(path, b"b")
    assert path.read_bytes() == b"b"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_concurrent_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "head"
    contents = [bytes([number]) * 100_000 for number in range(8)]

    def write(data: bytes) -> None:
        for _ in range(10):
            write_private(path, data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        write_private(tmp_path / "key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_write_replaces_and_respects_the_umask(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    before = os.umask(0o027)
    try:
        write_atomic(path, b"old")
        write_atomic(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    found: list[bool] = []

    def fail(*args: object, **kwargs: object) -> None:
        found.append(len(list(tmp_path.glob(TEMPORARY_GLOB))) == 1)
        raise error

    monkeypatch.setattr(os, name, fail)
    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_atomic(path, b"new")
    assert found == [True]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_syncs_content_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    seen: list[tuple[str, bool]] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        seen.append(("folder" if folder else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomic(path, b"content")
    assert seen == [("file", False), ("folder", True)]


def test_unwritable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path):
        with pytest.raises(CheckpointError, match="Expected to write 1 bytes"):
            write_atomic(path, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")
