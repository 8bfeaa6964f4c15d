"""Work that is killed one step later each time, until it gets through."""

import fcntl
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from tests.acceptance.chaos.forking import exit_code, fork


class Fuse:
    """Kills this process at its n-th step: around file operations, at SQL statements."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = operation(*args, **kwargs)
            self.step()
            return result

        return stepped

    def light(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("open", "close", "fsync", "replace", "unlink", "mkdir"):
            patch.setattr(os, name, self.around(getattr(os, name)))
        patch.setattr(fcntl, "flock", self.around(fcntl.flock))
        connect, fdopen = sqlite3.connect, os.fdopen

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self.step)
            return connection

        def torn(*args: Any, **kwargs: Any) -> IO[bytes]:
            file: IO[bytes] = fdopen(*args, **kwargs)
            write = file.write

            class Torn:
                def __enter__(self) -> Any:
                    file.__enter__()
                    return self

                def __exit__(self, *error: Any) -> None:
                    file.__exit__(*error)

                def write(_, data: bytes) -> None:  # noqa: N805
                    write(data[: len(data) // 2])
                    file.flush()
                    self.step()
                    write(data[len(data) // 2 :])

                def __getattr__(self, name: str) -> Any:
                    return getattr(file, name)

            return Torn()  # type: ignore[return-value]

        patch.setattr(sqlite3, "connect", traced)
        patch.setattr(os, "fdopen", torn)


def crash_everywhere(
    tmp_path: Path, base: Path | None, work: Callable[[Path], None], check: Callable[[Path], str]
) -> list[str]:
    """Run `work` on copies of `base`, killed one step later each time, until it completes."""
    seen = []
    for steps in range(1, 500):
        root = tmp_path / f"crash-{steps}"
        if base is not None:
            shutil.copytree(base, root)

        def child(steps: int = steps, root: Path = root) -> None:
            with pytest.MonkeyPatch.context() as patch:
                fuse = Fuse(steps)
                fuse.light(patch)
                work(root)
                fuse.step()

        code = exit_code(fork(child))
        assert code in (0, -signal.SIGKILL)
        seen.append(check(root))
        assert {path.name for path in root.iterdir()} == {"index.db", "lock", "objects"}
        shutil.rmtree(root)
        if code == 0:
            return seen
    raise AssertionError("Expected the work to get through in 500 steps.")
