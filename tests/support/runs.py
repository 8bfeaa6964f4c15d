"""Copies of runs, with the models registered with another database."""

import shutil
from pathlib import Path

from disinherit.simulations.run.folder import open_store


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
