"""A SuperNode that gave up exits, regardless of its threads; `make chaos` has real ones give up."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from disinherit.deploy import supernode

NODE = """
import threading, time
from disinherit.deploy import supernode

class Program:
    def load(self):
        return self.run

    def run(self):
        threading.Thread(target=time.sleep, args=(600,)).start()
        {end}

supernode.entry_points = lambda **_: [Program()]
supernode.main()
"""


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [
        ("raise OSError('handshake error')", 1, "OSError: handshake error"),
        ("raise SystemExit(0)", 0, ""),
        ("raise SystemExit('no')", 1, ""),
        ("pass", 1, ""),
    ],
)
def test_it_exits_despite_a_thread_that_never_ends(end: str, code: int, message: str) -> None:
    words = [sys.executable, "-c", NODE.format(end=end)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120.0)
    assert done.returncode == code
    assert message in done.stderr


def test_it_runs_flowers_supernode() -> None:
    (program,) = entry_points(group="console_scripts", name=supernode._PROGRAM)
    assert program.value.startswith("flwr.")
