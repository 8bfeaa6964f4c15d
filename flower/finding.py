"""The owner app of a running Flower app, as its server finds it."""

import importlib
import sys

from flwr.common.config import get_project_config, get_project_dir
from flwr.serverapp import Grid

from disinherit.common.errors import InputError
from disinherit.flower.owner_apps import OwnerApp, latest_app


def find_app(grid: Grid) -> OwnerApp:
    """Return the ClientApp of a running Flower app, which says what its model and its data are.

    It is what `pyproject.toml` of the run's bundle names; without a bundle, what was made in this
    process.

    Args:
        grid: Flower's grid of the run.

    Raises:
        InputError: if it cannot be imported, or is no `owner_app`.
    """
    run = grid.run
    found: object = latest_app()
    named = "the ClientApp of this process"
    if getattr(run, "fab_id", ""):
        folder = get_project_dir(run.fab_id, run.fab_version, run.fab_hash)
        app = get_project_config(folder)["tool"]["flwr"]["app"]
        named = str(app["components"]["clientapp"])
        module, _, attribute = named.partition(":")
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        try:
            found = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"Expected ClientApp {named!r} that the server can import, to know model and data "
                f"of the app, but: {error}."
            ) from error
    if not isinstance(found, OwnerApp):
        raise InputError(
            f"Expected {named} to be an owner app, so that nodes keep what they train, but it is "
            f"{'none' if found is None else type(found).__name__}. Write app = "
            "owner_app(ClientApp(), model=Net, data=load_data)."
        )
    return found
