"""The coordinator as a Flower ServerApp: one run carries out every open request, or one of them.

Configuration (`flwr run . --run-config 'database="..." expected-owners=5'`):

    database         path of the coordinator's SQLite file, or an SQLAlchemy URL
    request          id of one request; empty or not given: all open ones, the oldest first
    timeout          seconds to wait for an owner's answer (600)
    expected-owners  number of nodes to wait for (1)

A run ends when all reachable owners have answered or their time is up.  What is left is taken up by
a later run: everything is in the store.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from disinherit.common.errors import CampaignError, InputError
from disinherit.server.coordinator import CampaignResult, Coordinator
from disinherit.server.flower_transport import FlowerTransport
from disinherit.server.store import CoordinatorStore

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

_PATIENCE_SECONDS = 45.0
"""Longer than a coordinator's lease outlives it: a run that was killed may just have begun anew."""


OpenStore = Callable[[Context], CoordinatorStore]
"""Opens the coordinator's store for one run."""


def store_from_config(context: Context) -> CoordinatorStore:
    """Open the store that the run's configuration names.

    Raises:
        InputError: if it names none.
        StoreError: if it cannot be opened.
    """
    database = context.run_config.get("database")
    if not isinstance(database, str) or not database:
        raise InputError(
            "Expected the coordinator's database as a path or URL in the run's configuration, but "
            f"got database = {database!r}."
        )
    return CoordinatorStore(database if "://" in database else Path(database))


def build_server_app(open_store: OpenStore = store_from_config) -> ServerApp:
    """Return a ServerApp that carries out the requests of a store.

    Args:
        open_store: gives the store for a run's Flower context.

    Returns:
        An app; calling it raises `CampaignError` if no owner can be found.
    """
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        timeout = _number(context, "timeout", 600.0)
        expected = int(_number(context, "expected-owners", 1))
        store = open_store(context)
        try:
            request = context.run_config.get("request")
            drivable = [c.request_id for c in store.campaigns() if c.state.drivable]
            requests = [str(request)] if request else drivable
            transport = FlowerTransport(grid, expected, timeout)
            coordinator = Coordinator(
                store, transport, timeout, _log.info, patience=_PATIENCE_SECONDS
            )
            for request_id in requests:
                _carry_out(coordinator, sorted(transport.nodes), request_id)
        finally:
            store.close()

    return app


def _carry_out(coordinator: Coordinator, owners: list[str], request_id: str) -> None:
    """Carry out one request and log how it stands; one that is refused stops no other."""
    try:
        scope = coordinator.store.request(request_id).method.scope
        for owner, reason in coordinator.register(owners, scope).items():
            _log.warning("%s did not register all of its models: %s", owner, reason)
        _log_outcome(coordinator.run(request_id))
    except (InputError, CampaignError) as error:
        _log.warning("request %s: %s", request_id, error)


def _log_outcome(result: CampaignResult) -> None:
    settled = sum(task.state.settled for task in result.tasks.values())
    _log.log(
        logging.INFO if settled == len(result.tasks) else logging.WARNING,
        "request %s: %s, %d of %d models settled, %d changed",
        result.request_id,
        result.outcome,
        settled,
        len(result.tasks),
        len(result.changed),
    )
    for task in result.tasks.values():
        if not task.state.settled:
            _log.warning("%s of %s is %s: %s", task.model_id, task.owner, task.state, task.reason)


def _number(context: Context, name: str, default: float) -> float:
    value = context.run_config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"Expected {name} > 0 in the run's configuration, but got {value!r}.")
    return value


app = build_server_app()
