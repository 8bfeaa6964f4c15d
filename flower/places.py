"""Places of a Flower app's models on this machine, and the name of the owner that a node is.

::

    ~/.disinherit/flower/APP/server      the inheritance graph, requests, and global models
    ~/.disinherit/flower/APP/node-0      updates of one node, and what they were trained from

APP is the name of the app's project.  In release 0.1.0 it was the package of its model, which other
projects may share: models in such a folder are no project's until somebody renames it.  The
environment variable DISINHERIT_FLOWER names another folder than `~/.disinherit/flower`.
"""

import os
from collections.abc import Collection
from pathlib import Path

from flwr.app import Context

from disinherit.common.errors import InputError
from disinherit.common.graph.identifiers import check_owner
from disinherit.flower.functions import AppFunctions
from disinherit.server.recording.recorder import node_name

HOME = "DISINHERIT_FLOWER"
SERVER = "server"
"""Owner of the global models."""


def home() -> Path:
    """Return the folder of the models of all apps."""
    return Path(os.environ.get(HOME) or "~/.disinherit/flower").expanduser()


def known_apps() -> list[str]:
    """Return the names of the apps that have models on this machine, in alphabetical order."""
    return sorted(path.name for path in home().glob("*") if path.is_dir())


def folder_of(app: str, owner: str) -> Path:
    """Return where an owner's models would be, whether they are there or not.

    Args:
        app: name of the app.
        owner: name of the owner.
    """
    return home() / app / owner


def records_of(app: str) -> Path:
    """Return where the server's records of an app would be: a database."""
    return folder_of(app, SERVER) / "lineage.db"


def place_of(functions: AppFunctions, owner: str) -> Path:
    """Return the folder of an owner's models; it is made if it is not there.

    Args:
        functions: of the app.
        owner: name of the owner.

    Raises:
        InputError: if it cannot be made, or only a folder of release 0.1.0 is there.
    """
    check_name(functions.name, [functions.package])
    folder = folder_of(functions.name, owner)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Expected a folder for the models of {owner!r} at {folder}, but: {error.strerror}. "
            f"Name another one in {HOME}."
        ) from error
    return folder


def check_name(app: str, packages: Collection[str]) -> None:
    """Refuse an app without models while a folder of release 0.1.0 may have them.

    Args:
        app: name of the app.
        packages: names of packages that are the app's.

    Raises:
        InputError: if there is such a folder.
    """
    known = known_apps()
    if app not in known and (former := next((one for one in known if one in packages), None)):
        raise InputError(
            f"Expected models of {app!r} in {home() / app}, but there is {home() / former} alone, "
            "named by the package as in release 0.1.0, which other projects may share. If they "
            f"are of this project, rename the folder to {app}; if not, make an empty {app}."
        )


def owner_of(context: Context) -> str:
    """Return the name of the owner that a node is: `owner` of its configuration, or its partition.

    Without both it is its Flower id, which only nodes with registered keys keep.

    Raises:
        InputError: if it is no name of an owner, or that of the server.
    """
    config = context.node_config
    given = config.get("owner")
    if given is None:
        return node_name(int(config.get("partition-id", context.node_id)))
    name = check_owner(str(given))
    if name == SERVER:
        raise InputError(
            f"Expected the name of an owner in the node's configuration, but got owner={SERVER!r}, "
            "which is the server. Give another name."
        )
    return name
