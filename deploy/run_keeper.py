"""Keeper of a ServerApp run: `python -m disinherit.deploy.run_keeper`.

A resident run ends when its time is up, when it fails, and with the SuperLink.  This program starts
a run and exits when the run ends; its supervisor (`deploy/systemd/`, `disinherit deploy up`) then
restarts it.  It stops leftover runs at its start, and its own run at SIGTERM, so there is one run
at a time.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from disinherit.common.errors import DisinheritError
from disinherit.deploy.flower_cli import flwr, flwr_command
from disinherit.deploy.programs import ANSWER_SECONDS, run_configuration

APP = Path(__file__).resolve().parent / "flower"
"""The Flower app with Disinherit's ServerApp and ClientApp."""

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_NAME = "disinherit-app"
_ENDED = "finished"


class RunKeeper:
    """One run of the ServerApp.

    Args:
        app: folder of the Flower app.
        connection: name of the connection to the SuperLink, in Flower's configuration.
        run_config: configuration of the run.
    """

    def __init__(self, app: Path, connection: str, run_config: str) -> None:
        self._app = app
        self._connection = connection
        self._run_config = run_config

    def stop_others(self) -> None:
        """Stop leftover runs of earlier keepers.

        Raises:
            CampaignError: if the SuperLink cannot be asked.
        """
        for run, status in self._runs().items():
            if not status.startswith(_ENDED):
                _log.info("stopping the earlier run %s, which is %s", run, status)
                self.stop(run)

    def start(self) -> str:
        """Start a run and return its id.

        Raises:
            CampaignError: if it cannot be started.
        """
        words = (str(self._app), self._connection, "--run-config", self._run_config)
        return str(flwr("run", *words)["run-id"])

    def watch(self, run: str, stopped: threading.Event) -> bool:
        """Print a run's log until the run ends or the event is set.

        Args:
            run: its id.
            stopped: ends the watch.

        Returns:
            Whether the run has ended.

        Raises:
            CampaignError: if the SuperLink cannot be asked.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        while True:
            words = flwr_command("log", run, self._connection, "--stream")
            with subprocess.Popen(words, env=environment) as log:
                # Short waits, since another thread may have received the signal.
                while log.poll() is None and not stopped.wait(_POLL_SECONDS):
                    pass
                log.terminate()
            if stopped.is_set():
                return False
            if self._runs().get(run, _ENDED).startswith(_ENDED):
                return True

    def stop(self, run: str) -> None:
        """Stop a run.

        Raises:
            CampaignError: if the SuperLink cannot be asked.
        """
        flwr("stop", run, self._connection)

    def _runs(self) -> dict[str, str]:
        """Return the status of every run of the app."""
        listed = flwr("list", self._connection)
        return {
            str(run["run-id"]): str(run["status"])
            for run in listed["runs"]
            if str(run["fab-id"]).endswith(f"/{_NAME}")
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one run until it ends (exit code 1) or until SIGTERM (exit code 0)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--app", type=Path, default=APP, help="folder of the Flower app")
    parser.add_argument("--connection", required=True, help="to the SuperLink, loopback only")
    parser.add_argument("--service", type=Path, required=True, help="its configuration, TOML")
    parser.add_argument("--owners", type=Path, required=True, help="keys of owners' nodes, TOML")
    parser.add_argument(
        "--timeout", type=float, default=ANSWER_SECONDS, help="seconds to wait for a node's answer"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        configuration = run_configuration(
            options.service.absolute(), options.owners.absolute(), options.timeout
        )
        keeper = RunKeeper(options.app, options.connection, configuration)
        keeper.stop_others()
        run = keeper.start()
        _log.info("run %s", run)
        if keeper.watch(run, stopped):
            _log.warning("run %s has ended", run)
            return 1
        keeper.stop(run)
    except DisinheritError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
