"""The SuperLink of a run: whether it is the one that Flower starts by itself, and what a run does.

Flower's `config.toml` names connections.  One of an address of its own kind means a SuperLink for
simulations on this machine, which Flower starts where none answers, and leaves running.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from disinherit.common.text import load_toml
from disinherit.deploy.files import listens

INSTALLS_NOTHING = "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"
"""Variable that is 1 where a SuperLink does not install what apps depend on."""

_BY_ITSELF = (":local:", ":local-in-memory:")
_PORT = "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
_USUAL_PORT = "39091"


def is_started_by_flower(connection: str) -> bool:
    """Return whether a connection is to the SuperLink that Flower starts on this machine.

    Args:
        connection: its name; empty for Flower's default.
    """
    path = Path(os.environ.get("FLWR_HOME") or "~/.flwr").expanduser() / "config.toml"
    if not path.exists():
        return connection in ("", "local")  # Flower makes a file that says this
    try:
        known = load_toml(path.read_text("utf-8"))["superlink"]
        return known[connection or known["default"]]["address"] in _BY_ITSELF
    except (OSError, ValueError, KeyError, TypeError):
        return False  # Flower says what is wrong with it


def starting_line(connection: str, dependencies: Sequence[str]) -> str:
    """Return a line on what a run of Flower does before it does what it is for.

    Args:
        connection: name of the connection to the SuperLink; empty for Flower's default.
        dependencies: what the app's project depends on.
    """
    own = is_started_by_flower(connection)
    port = os.environ.get(_PORT, _USUAL_PORT)
    fresh = own and port.isdecimal() and not listens(int(port))
    line = "starting a run of Flower"
    if fresh:
        line += f", and its SuperLink at port {port}, which goes on running afterwards"
    elif not own:
        line += (
            f" by {f'the connection {connection!r}' if connection else 'its default connection'}"
        )
    if dependencies and not (fresh and os.environ.get(INSTALLS_NOTHING) == "1"):
        line += (
            f"; it first installs what the app depends on ({', '.join(dependencies)}), unless "
            f"{INSTALLS_NOTHING}=1 was set when the SuperLink started"
        )
    return line
