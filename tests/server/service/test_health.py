"""The health service, and reflection of the schema."""

import errno
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from disinherit.common.errors import StoreError
from disinherit.server.service.health import HealthMonitor, check_store
from disinherit.server.store import log_mark
from disinherit.server.store.database import Database
from disinherit.server.store.store import CoordinatorStore
from tests.support.service import Running, secret, serving

Status = health_pb2.HealthCheckResponse
PAGES = "SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"
NAME = "disinherit.v1.Coordinator"
VIEWER = [("authorization", f"Bearer {secret('viewer')}")]


def status(running: Running, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(running.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return int(answer.status)


def await_status(running: Running, wanted: int) -> None:
    deadline = time.monotonic() + 20
    while {status(running), status(running, NAME)} != {wanted}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_health_follows_the_database(tmp_path: Path) -> None:
    with serving(tmp_path) as running:  # no token: a probe has none
        await_status(running, Status.SERVING)
        path = tmp_path / "coordinator.db"
        path.rename(tmp_path / "elsewhere")
        await_status(running, Status.NOT_SERVING)
        assert not path.exists()  # looking for it does not make one
        (tmp_path / "elsewhere").rename(path)
        await_status(running, Status.SERVING)


def test_a_watch_of_health_gets_the_change(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        await_status(running, Status.SERVING)  # the first check may be slow
        stub = health_pb2_grpc.HealthStub(running.channel)
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20, metadata=VIEWER)
        assert next(watch).status == Status.SERVING
        (tmp_path / "coordinator.db").unlink()
        assert next(watch).status == Status.NOT_SERVING
        watch.cancel()


def test_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    with serving(tmp_path) as running, pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        status(running, "other")


class StatusRecorder:
    """In the place of a health servicer: the statuses that were set."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.changed = threading.Condition()

    def set(self, service: str, status: int) -> None:
        with self.changed:
            self.statuses.append(status)
            self.changed.notify_all()

    def enter_graceful_shutdown(self) -> None:
        self.set("", Status.NOT_SERVING)


def test_a_store_that_hangs_is_not_serving() -> None:
    recorder, hanging, release = StatusRecorder(), threading.Event(), threading.Event()

    def check() -> None:
        if hanging.is_set():
            release.wait(20)

    servicer: Any = recorder
    monitor = HealthMonitor(servicer, check, interval=0.05, patience=0.05)
    monitor.start()
    assert set(recorder.statuses) == {Status.SERVING}
    hanging.set()
    with recorder.changed:
        assert recorder.changed.wait_for(lambda: recorder.statuses[-1] == Status.NOT_SERVING, 10)
    release.set()
    monitor.stop()


def test_a_stopped_service_reports_not_serving() -> None:
    servicer = HealthServicer()
    monitor = HealthMonitor(servicer, lambda: None, interval=0.05)
    monitor.start()
    monitor.stop()
    found = servicer.Check(health_pb2.HealthCheckRequest(), None)
    assert found.status == Status.NOT_SERVING


def test_a_file_that_is_not_a_store_fails_the_check(tmp_path: Path) -> None:
    for name, content in (("empty.db", b""), ("other.db", b"something else" * 1000)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=name):
            check_store(tmp_path / name)


def test_a_full_disk_is_not_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path) as running:
        await_status(running, Status.SERVING)
        free = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: free._replace(free=4096))
            await_status(running, Status.NOT_SERVING)
            assert "not serving: Expected 1048576 free bytes" in caplog.text
        await_status(running, Status.SERVING)


def test_a_service_starts_on_a_full_disk_and_reports_not_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(tmp_path):
        pass
    (tmp_path / "signing.pem.head").unlink(missing_ok=True)
    monkeypatch.setattr(log_mark, "write_private", full)
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=0))
    with serving(tmp_path) as running:
        assert status(running) == Status.NOT_SERVING
        assert "No space left on device. Nothing was signed." in caplog.text


def test_a_read_only_database_is_not_serving_and_a_busy_one_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "coordinator.db"
    CoordinatorStore(path).close()
    check_store(path)
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    check_store(path)
    assert time.monotonic() - started < 5
    writing.execute("ROLLBACK")
    writing.close()
    database = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        with pytest.raises(StoreError, match="readonly"):
            database.check_writable()
    finally:
        database.close()


@pytest.mark.parametrize("table", ["request", "campaign", "audit"])
def test_a_damaged_table_is_not_serving(tmp_path: Path, table: str) -> None:
    path = tmp_path / "coordinator.db"
    CoordinatorStore(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = database.execute("PRAGMA page_size").fetchone()
        named = dict(database.execute(PAGES))
    (found,) = (page for name, page in named.items() if name.startswith(table))
    with path.open("r+b") as file:
        file.seek((found - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(StoreError, match="malformed"):
        check_store(path)


def test_reflection_lists_the_services(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            list(stub.ServerReflectionInfo(iter([ask]), timeout=10))
        (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=10, metadata=VIEWER)
        listed = {service.name for service in answer.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= listed
