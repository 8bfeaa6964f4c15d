"""A throw-away PostgreSQL on a free port, for the tests that need a real one."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

_ROOT_RUNS_AS = "postgres"


def find_binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest there is."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parent.parent.name),
    )
    return installed[-1].parent if installed else None


@contextmanager
def cluster(binaries: Path, folder: Path, durable: bool = False) -> Iterator[str]:
    """Start a cluster in an empty folder; yield its URL; stop exactly it.

    Without `durable` it does not wait for the disk, which only a measurement wants.
    """
    data = folder / "data"
    data.mkdir()
    if os.getuid() == 0:  # which PostgreSQL refuses to run as
        shutil.chown(data, _ROOT_RUNS_AS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        f"-c fsync={'on' if durable else 'off'} -c max_connections=40 -c shared_buffers=16MB"
    )
    _run([binaries / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"])
    _run([binaries / "pg_ctl", "-D", data, "-l", data / "log", "-o", settings, "-w", "start"])
    try:
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    finally:
        _run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])


def fresh_database(url: str, name: str) -> str:
    """Make an empty database in a cluster and return its URL."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
    engine.dispose()
    return url.rpartition("/")[0] + f"/{name}"


def _run(command: Sequence[str | Path]) -> None:
    prefix = []
    if os.getuid() == 0:
        who = [f"--reuid={_ROOT_RUNS_AS}", f"--regid={_ROOT_RUNS_AS}", "--clear-groups"]
        prefix = ["setpriv", *who]
    # Its log is a file: a pipe would stay open as long as the server runs.
    subprocess.run(
        [*prefix, *map(str, command)],
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
