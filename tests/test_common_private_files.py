"""Private files: whole or not at all, whoever else writes them, and nothing is left behind."""

import os
import stat
import threading
from pathlib import Path

import pytest

from disinherit.common.private_files import write_private


def test_what_a_killed_process_left_behind_is_used_again(
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


def test_those_who_write_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
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


def test_a_link_that_somebody_put_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        write_private(tmp_path / "key", b"secret")
    assert not (tmp_path / "elsewhere").exists()
