"""The least that a call can cost: a gRPC server of one read and one committed write a call.

python benchmarks/bare_server.py DATABASE   # a file of SQLite, or a URL of PostgreSQL

No token, no rule, no log: what of a coordinator's time is left beside this is its own.
"""

import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

_THREADS = 24
"""As many as a coordinator has for callers."""

_TABLE = "CREATE TABLE IF NOT EXISTS thing (id BIGINT PRIMARY KEY, made {blob} NOT NULL)"


class Lite:
    """A table in a file of SQLite, as durable as that of a coordinator."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._local = threading.local()
        self._turn = threading.Lock()
        self._db().execute(_TABLE.format(blob="BLOB"))

    def call(self, number: int, data: bytes) -> None:
        """Read one row, and write one."""
        db = self._db()
        db.execute("SELECT made FROM thing WHERE id = ?", (number // 2,)).fetchone()
        with self._turn:
            db.execute("INSERT INTO thing VALUES (?, ?)", (number, data))

    def _db(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = sqlite3.connect(self._path, isolation_level=None)
            for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL"):
                db.execute(f"PRAGMA {pragma}")
        return db


class Server:
    """A table of PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("postgresql+psycopg", "postgresql")
        self._local = threading.local()
        self._db().execute(_TABLE.format(blob="BYTEA"))

    def call(self, number: int, data: bytes) -> None:
        """Read one row, and write one."""
        db = self._db()
        db.execute("SELECT made FROM thing WHERE id = %s", (number // 2,)).fetchone()
        db.execute("INSERT INTO thing VALUES (%s, %s)", (number, data))

    def _db(self) -> Any:
        import psycopg

        if getattr(self._local, "db", None) is None:
            self._local.db = psycopg.connect(self._url, autocommit=True)
        return self._local.db


def main() -> None:
    """Serve until the process is told to stop."""
    where = sys.argv[1]
    table = Server(where) if where.startswith("postgresql") else Lite(where)
    counted, count = threading.Lock(), 0

    def answer(data: bytes, _: grpc.ServicerContext) -> bytes:
        nonlocal count
        with counted:
            count += 1
            number = count
        table.call(number, data)
        return data

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("Bare", {"Call": handler}),)
    )
    print(f"serving on port {server.add_insecure_port('127.0.0.1:0')}", file=sys.stderr, flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
