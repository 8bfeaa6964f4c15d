"""The coordinator's store of a run: in the run's folder, or on a server that it was moved to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.deploy.files import PACKETS
from disinherit.server.store import CoordinatorStore
from disinherit.simulations.run_folder import DATABASE


@contextmanager
def open_store(folder: Path, database: str | None = None) -> Iterator[CoordinatorStore]:
    """Open the store for the length of a block.

    Args:
        folder: of the run.
        database: URL of the coordinator's; `None` for the SQLite file in the folder.

    Raises:
        StoreError: if it cannot be opened.
    """
    packets = folder / (PACKETS if database else f"{DATABASE}.packets")
    store = CoordinatorStore(database or folder / DATABASE, packets)
    try:
        yield store
    finally:
        store.close()


def move_models(folder: Path, database: str) -> None:
    """Register the models that the folder's database knows with another one.

    Args:
        folder: of the run.
        database: URL of an empty database.

    Raises:
        StoreError: if one of them cannot be opened.
    """
    with open_store(folder) as store:
        graph = store.graph()
    with open_store(folder, database) as store:
        for record in sorted(graph.models(), key=lambda one: one.created_us):
            store.add_model(record, [edge for edge in graph.edges() if edge.child == record.id])
