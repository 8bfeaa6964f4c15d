"""Flower's simulation engine behind one function."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from disinherit.common.devices import pick_device

_OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""A simulation calls nobody: no telemetry, no look for updates."""


def simulate(
    main: Callable[[Grid], None], client_app: ClientApp, clients: int, device: str = "auto"
) -> None:
    """Run a server's main function against simulated clients, in parallel on the cores there are.

    Args:
        main: what the server does.
        client_app: what the clients do.
        clients: number of clients.
        device: where clients compute; an accelerator is shared out among those running at once.

    Raises:
        Exception: whatever `main` raises.
    """
    with _environment(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Flower's and Ray's own imports
        from flwr.simulation import run_simulation

        server_app = ServerApp()

        @server_app.main()
        def _main(grid: Grid, context: Context) -> None:
            main(grid)

        cores = os.cpu_count() or 1
        shared = 0.0 if pick_device(device).type == "cpu" else 1.0 / min(cores, clients)
        threads = torch.get_num_threads()
        try:
            run_simulation(
                server_app,
                client_app,
                num_supernodes=clients,
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": shared},
                    "init_args": {
                        "num_cpus": min(cores, clients),
                        "include_dashboard": False,
                        "log_to_driver": False,
                        "logging_level": logging.ERROR,
                    },
                },
            )
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _environment() -> Iterator[None]:
    """Keep Flower quiet and offline while it runs, and put everything back after."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
