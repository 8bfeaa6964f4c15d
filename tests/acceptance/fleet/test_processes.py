"""Processes in groups: started, killed with their children, started again, and always ended."""

import os
import sys
import time
from pathlib import Path

import pytest

from disinherit.common.errors import CampaignError
from disinherit.deploy.files import listens
from tests.acceptance.fleet.processes import Processes
from tests.support.ports import free_ports

PYTHON = Path(sys.executable).name
PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(600)\n"
)


def child_of(processes: Processes, name: str) -> int:
    processes.wait_for(name, "have a child", lambda: "child" in processes.log(name), 30.0)
    return int(processes.log(name).split()[-1])


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_process_is_killed_with_its_children_and_started_again(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", {}) as processes:
        processes.start("parent", [PYTHON, "-c", PARENT])
        first = child_of(processes, "parent")
        assert processes.running("parent")
        processes.kill("parent")
        assert not processes.running("parent")
        assert gone(first)
        processes.start("parent", [PYTHON, "-c", PARENT])
        processes.wait_for(
            "parent", "be back", lambda: processes.log("parent").count("child") == 2, 30.0
        )
        second = child_of(processes, "parent")
        assert second != first
    assert gone(second)


def test_one_that_ends_is_not_waited_for_and_its_last_words_are_told(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", {}) as processes:
        processes.start("mortal", [PYTHON, "-c", "print('no room'); raise SystemExit(3)"])
        with pytest.raises(CampaignError, match=r"(?s)mortal to listen.*no room"):
            processes.wait_for("mortal", "listen", lambda: False, 60.0)


def test_what_a_program_printed_is_returned_and_its_failure_is_told(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs", {"GREETING": "hello"}) as processes:
        code = "import os; print(os.environ['GREETING'], os.environ['OMP_NUM_THREADS'])"
        assert processes.run([PYTHON, "-c", code]) == "hello 1\n"
        with pytest.raises(CampaignError, match="exit code 3: .*no room"):
            processes.run([PYTHON, "-c", "print('no room'); raise SystemExit(3)"])
        with pytest.raises(CampaignError, match=r"within 0\.2 s"):
            processes.run([PYTHON, "-c", "import time; time.sleep(600)"], seconds=0.2)
    assert "GREETING" not in os.environ


def test_free_ports_are_free_and_differ() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    assert not any(map(listens, ports))
