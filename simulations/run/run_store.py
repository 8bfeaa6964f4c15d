"""The coordinator's store of a run: in the run's folder, or on a server that it was moved to."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.deploy.files import PACKETS
from disinherit.server.store.database import Database
from disinherit.server.store.signed_log import SignedLog, mark_file
from disinherit.server.store.signing import open_signer
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.folder import DATABASE


@contextmanager
def open_store(
    folder: Path, database: str | None = None, key: Path | None = None
) -> Iterator[CoordinatorStore]:
    """Open the store for the length of a block.

    Args:
        folder: of the run.
        database: URL of the coordinator's; `None` for the SQLite file in the folder.
        key: file of the key that signs the log, made if there is none; `None` for no signatures.

    Raises:
        StoreError: if it cannot be opened.
    """
    packets = folder / (PACKETS if database else f"{DATABASE}.packets")
    opened = Database(database or folder / DATABASE)
    store = CoordinatorStore(opened, packets)
    try:
        if key is not None:
            store.signed_log = SignedLog(opened, open_signer(key), mark_file(key))
        yield store
    finally:
        store.close()


def copy_run(start: Path, folder: Path, database: str | None = None) -> None:
    """Copy a run, and register its models with another database.

    Args:
        start: the run's folder.
        folder: of the copy; made.
        database: URL of an empty one for the coordinator; `None` for SQLite, as it is.

    Raises:
        StoreError: if a database cannot be opened.
    """
    shutil.copytree(start, folder)
    if database is None:
        return
    with open_store(folder) as store:
        graph = store.graph()
    with open_store(folder, database) as store:
        for record in sorted(graph.models(), key=lambda one: one.created_us):
            store.add_model(record, [edge for edge in graph.edges() if edge.child == record.id])
