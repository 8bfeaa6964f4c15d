"""Models of an owner that has left a Flower app: deleted where its node was, and retired."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from disinherit.common.errors import InputError
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.text import did_you_mean
from disinherit.flower.places import HOME, SERVER, folder_of, home, known_apps, records_of
from disinherit.server.store.retiring import retire_versions
from disinherit.server.store.store import CoordinatorStore

_OPERATOR = "operator"
"""Actor of the log's entries."""


@dataclass(frozen=True, slots=True)
class Left:
    """What this machine has of an owner.

    Attributes:
        owner: its name.
        models: the folder of its node; `None` if it is not on this machine.
        records: the database of the server; `None` if it is not on this machine.
    """

    owner: str
    models: Path | None
    records: Path | None


def find_left(app: str, owner: str) -> Left:
    """Return what this machine has of an owner.

    Args:
        app: name of the app: that of its folder.
        owner: name of the owner.

    Raises:
        InputError: if it has nothing, or the name is no owner's.
    """
    if check_owner(owner) == SERVER:
        raise InputError(f"Expected an owner that is a node, but got {SERVER!r}.")
    models, records = folder_of(app, owner), records_of(app)
    if not models.is_dir() and not records.is_file():
        known = known_apps()
        raise InputError(
            f"Expected models of {owner!r}, or the server's records of {app!r}, on this machine "
            f"in {home()}, which has apps {', '.join(known) or 'none'}.{did_you_mean(app, known)} "
            f"Run it where the node or the server was; {HOME} names another folder."
        )
    return Left(owner, models if models.is_dir() else None, records if records.is_file() else None)


def retire(left: Left) -> list[str]:
    """Retire an owner's models in the server's records, and delete those of its node.

    Returns:
        The versions that were retired in the records.

    Raises:
        RequestError: if the server's records are here, and no request took out what the owner
            contributed; nothing is deleted then.
        InputError: if the folder cannot be deleted.
    """
    retired: list[str] = []
    if left.records is not None:
        store = CoordinatorStore(left.records)
        try:
            retired = retire_versions(store, left.owner, _OPERATOR)
        finally:
            store.close()
    if left.models is not None:
        try:
            shutil.rmtree(left.models)
        except OSError as error:
            raise InputError(
                f"Expected to delete {left.models}, but: {os.strerror(error.errno or 0)}."
            ) from error
    return retired
