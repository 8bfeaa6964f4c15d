"""The owner app of a running Flower app, as its server finds it."""

from flwr.common.config import get_project_config, get_project_dir
from flwr.serverapp import Grid
from flwr.supercore.object_ref import load_app

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
        try:
            # Not `import_module`: the simulation engine loads the same module in another thread,
            # and takes it for loaded while it is half imported. Flower's function has its lock.
            found = load_app(named, AttributeError, folder)
        except (ImportError, AttributeError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise InputError(
                f"Expected ClientApp {named!r} that the server can import, to know model and data "
                f"of the app, but: {reason}."
            ) from error
    if not isinstance(found, OwnerApp):
        raise InputError(
            f"Expected {named} to be an owner app, so that nodes keep what they train, but it is "
            f"{'none' if found is None else type(found).__name__}. Write app = "
            "owner_app(ClientApp(), model=Net, data=load_data)."
        )
    return found
