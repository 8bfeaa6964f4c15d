"""Orphans of Flower are found by its home; other processes are not touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from disinherit.deploy.orphans import end_orphans

SLEEP = [sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(60)"]
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")


def test_only_processes_of_the_folder_are_ended(tmp_path: Path) -> None:
    homes = [tmp_path / "one" / "flower", tmp_path / "one-more" / "flower"]
    started = [
        subprocess.Popen(SLEEP, env=os.environ | {"FLWR_HOME": str(home)}, start_new_session=True)
        for home in homes
    ]
    try:
        assert end_orphans(tmp_path / "one") == [started[0].pid]
        assert started[0].wait(10) == -9
        assert started[1].poll() is None
        assert end_orphans(tmp_path / "one") == []
    finally:
        for process in started:
            process.kill()
            process.wait()
