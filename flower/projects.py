"""The project that a Flower app is: publisher and name, as its `pyproject.toml` says.

Flower calls an app by these two on every machine, and every bundle of it has the file.  So they
name the app's models where it is developed, in simulations, and on the machines of its nodes.  The
name of a package would not do: all apps that are made from one template share it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from disinherit.common.errors import InputError
from disinherit.common.text import load_toml

_FILE = "pyproject.toml"


def read_project(folder: Path) -> dict[str, Any]:
    """Return the configuration of an app's project.

    Args:
        folder: of the app.

    Raises:
        InputError: if it is no Flower app with a ClientApp, or has no publisher or name.
    """
    path = folder / _FILE
    try:
        content = load_toml(path.read_text("utf-8"))
        clientapp = content["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (OSError, ValueError, KeyError, TypeError):
        clientapp = None
    if not isinstance(clientapp, str):
        raise InputError(
            f"Expected the folder of a Flower app, whose pyproject.toml names a clientapp, but got "
            f"{str(folder)!r}."
        )
    if _name(content) is None:
        raise InputError(
            f"Expected a name of the project and a publisher of the app in {path}, by which its "
            "models are found, but got none. Add name to [project] and publisher to "
            "[tool.flwr.app]."
        )
    return content


def project_name(content: dict[str, Any]) -> str:
    """Return the name of a project, as a folder can have it.

    Args:
        content: its configuration, as `read_project` returns it.

    Example:
        >>> project_name({"project": {"name": "a"}, "tool": {"flwr": {"app": {"publisher": "me"}}}})
        'me.a'
    """
    name = _name(content)
    assert name is not None
    return name


def dependencies(content: dict[str, Any]) -> list[str]:
    """Return what a project depends on, as its configuration says it."""
    listed = content["project"].get("dependencies")
    return list(map(str, listed)) if isinstance(listed, list) else []


def project_of(modules: Iterable[str]) -> str | None:
    """Return the name of the project that has one of some modules, the first of which it has.

    Args:
        modules: names of modules that are imported.

    Returns:
        The name; `None` if no project of Flower has any of them.
    """
    for module in modules:
        root = _root(module)
        if root is not None and (root / _FILE).is_file():
            try:
                return project_name(read_project(root))
            except InputError:  # a project, but none of Flower
                continue
    return None


def _name(content: dict[str, Any]) -> str | None:
    """Return publisher and name with a dot between them, which no quoted publisher has."""
    try:
        given = content["tool"]["flwr"]["app"]["publisher"], content["project"]["name"]
    except (KeyError, TypeError):
        return None
    if not all(isinstance(one, str) and one for one in given):
        return None
    publisher, name = (quote(one, safe="") for one in given)
    return f"{publisher.replace('.', '%2E')}.{name}"


def _root(module: str) -> Path | None:
    """Return the folder that a module's package was imported from: of a bundle, its own."""
    top = sys.modules.get(module.partition(".")[0])
    package = next(iter(getattr(top, "__path__", ())), None)
    place = package or getattr(top, "__file__", None)
    return Path(place).absolute().parent if place else None
