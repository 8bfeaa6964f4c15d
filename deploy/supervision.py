"""Supervision of programs without systemd, by supervisord.

A SuperNode that restarts within a minute after a kill exits, since the SuperLink still considers it
online and refuses it.  A run of the ServerApp ends with the SuperLink.  So the supervisor restarts
every program that exits, without a limit.
"""

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.files import write_atomic
from disinherit.deploy.programs import BINARIES, Program

_START_SECONDS = 30.0
_END_SECONDS = 120.0
_POLL_SECONDS = 0.2
_SOCKET_LENGTH = 100
"""Maximum path of a socket on Linux, minus room for a suffix of supervisord."""


class Supervisor:
    """Supervisor of programs, which continue after this process ends.

    Args:
        folder: folder of its configuration, its socket and all logs.

    Attributes:
        folder: the same, absolute.

    Raises:
        InputError: if the folder's path is too long for a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._configuration = self.folder / "supervisord.conf"
        self._socket = self.folder / "supervisor.sock"
        if len(bytes(self._socket)) > _SOCKET_LENGTH:
            raise InputError(
                f"Expected a folder with a path of at most {_SOCKET_LENGTH - 16} bytes, with room "
                f"for a socket, but got {str(self.folder)!r}."
            )

    def running(self) -> bool:
        """Return whether a supervisor runs for the folder."""
        if not self._configuration.exists():
            return False
        # The exit code is the programs' state; 4 means that no supervisor answers.
        return self._control("pid").returncode == 0

    def keep(self, programs: Sequence[Program]) -> None:
        """Run exactly these programs; unchanged ones are not restarted.

        Args:
            programs: the programs; each gets its own environment, and that of this process.

        Raises:
            CampaignError: if the supervisor does not start or refuses.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        running = self.running()
        text = self._header() + "".join(map(self._section, programs))
        write_atomic(self._configuration, text.encode())
        if running:
            self._require("update")
            return
        self._socket.unlink(missing_ok=True)  # left by a killed supervisor
        words = [str(BINARIES / "supervisord"), "-c", str(self._configuration)]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while done.returncode == 0 and not self.running():
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        else:
            if done.returncode == 0:
                return
        raise CampaignError(
            f"Expected supervisord to start, but: {done.stdout}{done.stderr} Its log is "
            f"{self.folder / 'supervisord.log'}."
        )

    def status(self) -> str:
        """Return the status of each program, one a line."""
        return self._control("status").stdout

    def log(self, name: str) -> Path:
        """Return the path of a program's log."""
        return self.folder / f"{name}.log"

    def end(self) -> bool:
        """End all programs and the supervisor; return whether one was running.

        Raises:
            CampaignError: if a program does not end.
        """
        if not self.running():
            return False
        self._require("shutdown")
        deadline = time.monotonic() + _END_SECONDS
        while self._socket.exists() or self.running():
            if time.monotonic() > deadline:
                raise CampaignError(
                    f"Expected all programs to end within {_END_SECONDS:g} s, but some have not; "
                    f"see {self.folder}."
                )
            time.sleep(_POLL_SECONDS)
        return True

    def _header(self) -> str:
        return (
            f"[unix_http_server]\nfile={_escape(str(self._socket))}\nchmod=0700\n"
            f"[supervisord]\nlogfile={_escape(str(self.folder / 'supervisord.log'))}\n"
            f"pidfile={_escape(str(self.folder / 'supervisord.pid'))}\n"
            f"childlogdir={_escape(str(self.folder))}\numask=077\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory="
            "supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{_escape(str(self._socket))}\n"
        )

    def _section(self, program: Program) -> str:
        first, *others = program.words
        words = shlex.join([str(BINARIES / first), *others])
        environment = ",".join(
            f'{key}="{_escape(text)}"' for key, text in program.environment.items()
        )
        return (
            f"[program:{program.name}]\ncommand={_escape(words)}\n"
            # After an earlier exit, the pause before a restart grows by a second each time.
            "autorestart=true\nstartsecs=10\nstartretries=1000000\n"
            f"stopwaitsecs={program.stop_seconds}\nstopasgroup=true\nkillasgroup=true\n"
            f"environment={environment}\n"
            "redirect_stderr=true\nstdout_logfile_maxbytes=10MB\nstdout_logfile_backups=3\n"
            f"stdout_logfile={_escape(str(self.log(program.name)))}\n"
        )

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [str(BINARIES / "supervisorctl"), "-c", str(self._configuration), *arguments]
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def _require(self, *arguments: str) -> None:
        done = self._control(*arguments)
        if done.returncode != 0:
            raise CampaignError(
                f"Expected supervisord to {arguments[0]}, but: {done.stdout}{done.stderr}"
            )


def _escape(text: str) -> str:
    return text.replace("%", "%%")
