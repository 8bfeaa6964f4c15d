"""Settings for all tests, and the small federation that those of the coordinator start from."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from disinherit.server.store.store import CoordinatorStore
from tests.acceptance.chaos.postgres import (
    cluster,
    drop_database,
    find_binaries,
    fresh_database,
)
from tests.support.campaign import World, build, copy
from tests.support.delta_world import build_delta
from tests.support.longest_first import place
from tests.support.orphan_reaper import watch_over_this_run
from tests.support.service import Running, serving

# A busy machine must not fail a property test for being slow.
settings.register_profile("disinherit", deadline=None)
settings.load_profile("disinherit")

_numbers = itertools.count()


_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 4 << 30


def pytest_configure() -> None:
    """Have what the tests start end with this run, however it ends, and their files in memory."""
    watch_over_this_run()
    if _has_room(_MEMORY):
        # Stores sync each change: on a disk, that is a third of the time of many tests.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def _has_room(folder: Path) -> bool:
    """Whether a folder in memory can hold all files of a run, programs among them."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = 1024 * int(facts["MemAvailable"].split()[0])
    return min(available, shutil.disk_usage(folder).free) > _NEEDED_BYTES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that all processes end together."""
    items.sort(key=lambda item: place(item.nodeid))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random numbers: what fails once fails again."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation of `support.campaign`, trained and registered; to be copied, not changed."""
    root = tmp_path_factory.mktemp("built")
    build(root)
    return root


@pytest.fixture(scope="session")
def built_delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of `support.delta_world`, likewise."""
    root = tmp_path_factory.mktemp("built-delta")
    build_delta(root)
    return root


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """A PostgreSQL of the tests' own."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin")
    in_memory = os.environ.get("PYTEST_DEBUG_TEMPROOT") == str(_MEMORY)
    folder = Path(
        tempfile.mkdtemp(prefix="disinherit-postgres-", dir=_MEMORY if in_memory else None)
    )
    folder.chmod(0o755)  # the server may run as another user
    try:
        with cluster(binaries, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def with_tables(cluster_url: str) -> str:
    """The name of a database in it that has all tables and no rows; only to be copied."""
    CoordinatorStore(fresh_database(cluster_url, "with-tables")).close()
    return "with-tables"


@pytest.fixture
def empty_postgresql(cluster_url: str) -> Iterator[str]:
    """The URL of a database in it without tables, as a deployment begins with."""
    name = f"test{next(_numbers)}"
    yield fresh_database(cluster_url, name)
    drop_database(cluster_url, name)


@pytest.fixture
def postgresql(cluster_url: str, with_tables: str) -> Iterator[str]:
    """The URL of a database in it without rows, where no test waits for the tables."""
    name = f"test{next(_numbers)}"
    yield fresh_database(cluster_url, name, with_tables)
    drop_database(cluster_url, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """The URL of a database without rows; `None` for SQLite, in a file beside the models."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def world(built: Path, tmp_path: Path, database: str | None) -> Iterator[World]:
    """A copy of the federation, once with each kind of database."""
    with copy(built, tmp_path / "world", database) as world:
        yield world


@pytest.fixture
def running(built: Path, tmp_path: Path, database: str | None) -> Iterator[Running]:
    """A service over a copy of it, likewise."""
    root = tmp_path / "copy"
    copy(built, root, database).store.close()
    with serving(root, database=database) as running:
        yield running
