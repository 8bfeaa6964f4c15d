"""Places of a Flower app's models on this machine, and the name of the owner that a node is.

::

    ~/.disinherit/flower/APP/server      the inheritance graph, requests, and global models
    ~/.disinherit/flower/APP/node-0      updates of one node, and what they were trained from

The environment variable DISINHERIT_FLOWER names another folder than `~/.disinherit/flower`.
"""

import os
from pathlib import Path

from flwr.app import Context

from disinherit.common.errors import InputError
from disinherit.common.graph.identifiers import check_owner
from disinherit.server.recording.recorder import node_name

HOME = "DISINHERIT_FLOWER"
SERVER = "server"
"""Owner of the global models."""


def folder_of(app: str, owner: str) -> Path:
    """Return where an owner's models would be, whether they are there or not.

    Args:
        app: name of the app.
        owner: name of the owner.
    """
    return Path(os.environ.get(HOME) or "~/.disinherit/flower").expanduser() / app / owner


def place_of(app: str, owner: str) -> Path:
    """Return the folder of an owner's models; it is made if it is not there.

    Args:
        app: name of the app.
        owner: name of the owner.

    Raises:
        InputError: if it cannot be made.
    """
    folder = folder_of(app, owner)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Expected a folder for the models of {owner!r} at {folder}, but: {error.strerror}. "
            f"Name another one in {HOME}."
        ) from error
    return folder


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
