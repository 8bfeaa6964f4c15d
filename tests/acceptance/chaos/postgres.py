"""A throw-away PostgreSQL on a free port of loopback, which may be taken away and given back."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from disinherit.deploy.files import HOST
from tests.support.ports import free_ports

_ROOT_RUNS_AS = "postgres"
_SECONDS = 60


def find_binaries() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`, the newest there is."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parent.parent.name),
    )
    return installed[-1].parent if installed else None


class Cluster:
    """A cluster in a folder.

    Args:
        binaries: where PostgreSQL's programs are.
        folder: an empty one.
        durable: whether it waits for the disk.

    Attributes:
        url: of its first database.
    """

    def __init__(self, binaries: Path, folder: Path, *, durable: bool = False) -> None:
        self._control: list[str | Path] = [binaries / "pg_ctl", "-D", folder / "data", "-w"]
        self._log = folder / "data" / "log"
        port = free_ports(1)[0]
        self.url = f"postgresql+psycopg://tester@{HOST}:{port}/postgres"
        self._settings = (
            f"-p {port} -c listen_addresses={HOST} -c unix_socket_directories= "
            f"-c fsync={'on' if durable else 'off'} -c max_connections=40 -c shared_buffers=16MB"
        )
        data = folder / "data"
        data.mkdir()
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            shutil.chown(data, _ROOT_RUNS_AS)
        _run([binaries / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"])

    def start(self) -> None:
        """Start it, and wait until it answers."""
        _run([*self._control, "-l", self._log, "-o", self._settings, "start"])

    def stop(self) -> None:
        """Have it drop everything at once, as if its machine had lost power."""
        _run([*self._control, "-m", "immediate", "stop"])


@contextmanager
def cluster(binaries: Path, folder: Path, durable: bool = False) -> Iterator[str]:
    """Start a cluster in an empty folder; yield its URL; stop exactly it.

    Args:
        binaries: where PostgreSQL's programs are.
        folder: an empty one.
        durable: whether it waits for the disk, which only a measurement wants.
    """
    made = Cluster(binaries, folder, durable=durable)
    made.start()
    try:
        yield made.url
    finally:
        made.stop()


def fresh_database(url: str, name: str, template: str = "template0") -> str:
    """Make a database in a cluster and return its URL.

    Args:
        url: of a database in the cluster.
        name: of the new one.
        template: the database that it is a copy of, which nobody is connected to; an empty one
            unless said otherwise.
    """
    _administer(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return url.rpartition("/")[0] + f"/{name}"


def drop_database(url: str, name: str) -> None:
    """Remove a database of a cluster, and end the connections to it."""
    _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _run(command: Sequence[str | Path]) -> None:
    prefix = []
    if os.getuid() == 0:
        who = [f"--reuid={_ROOT_RUNS_AS}", f"--regid={_ROOT_RUNS_AS}", "--clear-groups"]
        prefix = ["setpriv", *who]
    # Its log is a file: a pipe would stay open as long as the server runs.
    subprocess.run(
        [*prefix, *map(str, command)],
        check=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )
