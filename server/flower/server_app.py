"""Flower ServerApp of the coordinator: a run carries out all open requests, or one of them.

Configuration (`flwr run . --run-config 'database="..." owners="owners.toml"'`):

    database         path of the coordinator's SQLite file, or an SQLAlchemy URL
    packets          folder of the roots' Fisher packets, or an fsspec URL; empty or not given:
                     beside the SQLite file
    owners           file of the owners' public keys, see `disinherit.server.flower.owner_keys`;
                     empty in a simulation, which has no keys: nodes report their owners' names
    timeout          seconds to wait for an owner's answer (600)

A run ends when all reachable owners have answered or timed out:

    request          id of one request; empty or not given: all open ones, the oldest first
    expected-owners  number of nodes to wait for (1)

Or it stays and drives all open campaigns, beside a coordinator's service if there is one:

    stay-seconds     duration (0: it does not stay)

A later run continues open campaigns: their state is in the store.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from disinherit.common.errors import CampaignError, InputError
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.flower.owner_keys import read_owner_keys
from disinherit.server.flower.owners import Directory, NamedOwners, RegisteredOwners
from disinherit.server.flower.resident import reside, until_signal
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.store.store import CoordinatorStore

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

_PATIENCE_SECONDS = 45.0
"""Longer than the lease of a killed coordinator: this run may follow one that was killed."""


OpenStore = Callable[[Context], CoordinatorStore]
"""Opens the coordinator's store for one run."""


def store_from_config(context: Context) -> CoordinatorStore:
    """Open the store that the run's configuration names.

    Raises:
        InputError: if the database is missing, or `packets` is not a text.
        StoreError: if the store cannot be opened.
    """
    packets = context.run_config.get("packets", "")
    if not isinstance(packets, str):
        raise InputError(
            "Expected the Fisher packets as a path or URL in the run's configuration, but got "
            f"packets = {packets!r}."
        )
    database = context.run_config.get("database")
    if not isinstance(database, str) or not database:
        raise InputError(
            "Expected the coordinator's database as a path or URL in the run's configuration, but "
            f"got database = {database!r}."
        )
    return CoordinatorStore(database if "://" in database else Path(database), packets or None)


def build_server_app(open_store: OpenStore = store_from_config) -> ServerApp:
    """Return a ServerApp that carries out the requests of a store.

    Args:
        open_store: opens the store for a run's Flower context.

    Returns:
        An app; a run raises `CampaignError` if it finds no owner.
    """
    app = ServerApp()

    @app.main()
    def _main(grid: Grid, context: Context) -> None:
        timeout = _number(context, "timeout", 600.0)
        seconds = _number(context, "stay-seconds", 0.0, least=0.0)
        keys = _keys(context)
        if seconds and keys is None:
            raise InputError(
                "Expected a file of the owners' public keys in the run's configuration for a run "
                "that stays, but got none."
            )
        store = open_store(context)
        try:
            if keys is None:
                named = NamedOwners(grid, _expected(context), timeout)
                _run_once(grid, context, store, named, sorted(named.nodes), timeout)
                return
            registered = RegisteredOwners(grid, keys)
            if seconds:
                with until_signal() as stopped:
                    reside(grid, store, registered, timeout, seconds, stopped)
            else:
                found = registered.wait(_expected(context), timeout)
                _run_once(grid, context, store, registered, found, timeout)
        finally:
            store.close()

    return app


def _run_once(
    grid: Grid,
    context: Context,
    store: CoordinatorStore,
    owners: Directory,
    names: list[str],
    timeout: float,
) -> None:
    """Carry out the open requests."""
    transport = FlowerTransport(grid, owners)
    coordinator = Coordinator(store, transport, timeout, _log.info, patience=_PATIENCE_SECONDS)
    request = context.run_config.get("request")
    drivable = [c.request_id for c in store.campaigns() if c.state.drivable]
    for request_id in [str(request)] if request else drivable:
        _carry_out(coordinator, names, request_id)


def _carry_out(coordinator: Coordinator, owners: list[str], request_id: str) -> None:
    """Carry out one request and log its outcome; a refused request does not stop the others."""
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


def _keys(context: Context) -> dict[str, bytes] | None:
    path = context.run_config.get("owners", "")
    if not isinstance(path, str):
        raise InputError(
            "Expected the file of the owners' public keys in the run's configuration, but got "
            f"owners = {path!r}."
        )
    return read_owner_keys(Path(path)) if path else None


def _expected(context: Context) -> int:
    return int(_number(context, "expected-owners", 1))


def _number(context: Context, name: str, default: float, least: float | None = None) -> float:
    value = context.run_config.get(name, default)
    if isinstance(value, bool | str) or not (0 < value < 1e9 or value == least):
        bound = "> 0" if least is None else f">= {least:g}"
        raise InputError(f"Expected {name} {bound} in the run's configuration, but got {value!r}.")
    return float(value)


app = build_server_app()
