"""A test run that is killed leaves nothing running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.agent import wait_for
from tests.support.orphan_reaper import MARK, marked

RUN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
sys.path.insert(0, sys.argv[1])
from tests.support.orphan_reaper import MARK, watch_over_this_run
watch_over_this_run()
import os
# One that stays, and one that left its parent's session as a daemon does.
child = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
for apart in (False, True):
    one = subprocess.Popen(child, stdout=subprocess.PIPE, start_new_session=apart)
    one.stdout.readline()
print(os.environ[MARK], flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_a_run_started_ends_with_it(number: signal.Signals) -> None:
    environment = {key: value for key, value in os.environ.items() if key != MARK}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert run.stdout is not None
    mark = run.stdout.readline().strip()
    assert len(marked(mark)) == 2
    run.send_signal(number)
    run.wait(60.0)
    wait_for(lambda: marked(mark) == [], 60.0)
    run.stdout.close()


def test_this_run_is_watched_over() -> None:
    assert os.environ[MARK]
