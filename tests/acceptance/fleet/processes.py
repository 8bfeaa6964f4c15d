"""The processes of a fleet on this machine: started, watched, killed, started again, and ended."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from disinherit.common.errors import CampaignError
from disinherit.deploy.orphans import end_orphans
from disinherit.deploy.programs import BINARIES, OFFLINE
from tests import ROOT

_END_SECONDS = 15.0
_POLL_SECONDS = 0.05

QUIET = {
    **OFFLINE,
    # As in the simulation: more threads would split sums in other ways.
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",
}
"""Keeps Flower quiet and offline."""


Command = Sequence[str | Path]
"""A program of this environment, and its arguments."""


class Processes:
    """Processes by name, each in a group of its own, with a log each.

    Args:
        logs: folder of the logs.
        environment: beside that of this process.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        # Flower starts programs of its own, which it looks for in the path.
        path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])
        here = {"PATH": path, "PYTHONPATH": str(ROOT)}  # where the factories of owners are
        self._environment = {**os.environ, **here, **QUIET, **environment}
        self._home = environment.get("FLWR_HOME")
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._started):
            self._signal(name, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        for name in reversed(self._started):
            with suppress(subprocess.TimeoutExpired):
                self._started[name].wait(max(0.0, deadline - time.monotonic()))
            self.kill(name)  # what is left of its group
        if self._home is not None:
            end_orphans(Path(self._home))

    def start(self, name: str, command: Command) -> None:
        """Start a process, or start one again that has ended.

        Args:
            name: for its log.
            command: a program of this environment, and its arguments.
        """
        words = _words(command)
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started[name] = process

    def run(self, command: Command, seconds: float = 60.0) -> str:
        """Run a program of this environment and return what it printed.

        Args:
            command: program and arguments.
            seconds: how long it may take.

        Raises:
            CampaignError: if it fails or takes longer.
        """
        words = _words(command)
        try:
            done = subprocess.run(
                words, env=self._environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise CampaignError(f"Expected {words} to end within {seconds:g} s.") from None
        if done.returncode != 0:
            raise CampaignError(
                f"Expected {words} to succeed, but got exit code {done.returncode}: "
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def running(self, name: str) -> bool:
        """Return whether a process is running."""
        return self._started[name].poll() is None

    def kill(self, name: str) -> None:
        """Kill a process and all its children by SIGKILL, and wait until it is gone."""
        self._signal(name, signal.SIGKILL)
        self._started[name].wait()

    def log(self, name: str) -> str:
        """Return what a process has said so far."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def wait_for(self, name: str, what: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds of a process.

        Args:
            name: the process; once it has ended, nothing is waited for any more.
            what: to wait for, for people to read.
            ready: whether it holds.
            seconds: how long to wait.

        Raises:
            CampaignError: if it does not come to hold.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running(name) or time.monotonic() > deadline:
                end = "\n".join(self.log(name).splitlines()[-15:])
                raise CampaignError(f"Expected {name} to {what}, but its log ends with:\n{end}")
            time.sleep(_POLL_SECONDS)

    def _signal(self, name: str, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._started[name].pid, number)


def _words(command: Command) -> list[str]:
    return [str(BINARIES / command[0]), *map(str, command[1:])]
