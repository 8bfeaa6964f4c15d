"""Flower's simulation engine behind one function."""

import importlib.util
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.extras import how_to_install
from disinherit.common.models.devices import pick_device
from disinherit.simulations.scenario.settings import OWNER_THREADS

_LOG = logging.getLogger(__name__)
_STARTS = 3


def start_ray(arguments: Mapping[str, Any]) -> None:
    """Start Ray before Flower's simulation engine does, which then uses it; try up to three times.

    Ray gives its first process 15 s, which is too short on a busy or newly started machine.

    Args:
        arguments: of `ray.init`.

    Raises:
        CampaignError: if it does not come up; no process is left then.
    """
    import ray

    # As Flower does it: clients import what this process can import.
    path = os.pathsep.join([*sys.path, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONPATH"] = path
    environment = {"env_vars": {"PYTHONPATH": path}}
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(runtime_env=environment, **arguments)
        except Exception as error:  # Ray has no class of its own for it
            _kill_started(error)
            ray.shutdown()
            if attempt == _STARTS:
                raise CampaignError(
                    f"Expected the simulation engine to start, but Ray did not in {_STARTS} "
                    f"attempts: {type(error).__name__}: {error}"
                ) from error
            _LOG.warning("Ray did not start (%s): attempt %d of %d", error, attempt + 1, _STARTS)
        else:
            return


def _kill_started(error: Exception) -> None:
    """Kill the processes of an incomplete node, which only its methods know."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(found := frame.f_locals.get("self"), Node):
            node: Any = found  # whose methods have no types
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            return


R = TypeVar("R")


_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": str(OWNER_THREADS),
}
"""No calls to others: no telemetry, no look for updates, no installation."""

_ENDING_SECONDS = 30.0


def check_engine() -> None:
    """Check that the simulation engine is installed.

    Raises:
        InputError: if it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "Expected Flower's simulation engine, but Ray is not installed. Run "
            f"{how_to_install('simulation')}."
        )


def simulate(
    main: Callable[[Grid], R], client_app: ClientApp, clients: int, device: str = "auto"
) -> R:
    """Run a server's main function against simulated clients, in parallel on the cores there are.

    Whatever happens, no process, thread or environment variable of the engine is left behind.

    Args:
        main: what the server does; called in a thread of its own.
        client_app: what the clients do, in processes of their own.
        clients: number of clients.
        device: where clients compute; an accelerator is shared out among those running at once.

    Returns:
        What `main` returned.

    Raises:
        Exception: whatever `main` raised.
        CampaignError: if the engine itself failed.
        KeyboardInterrupt: if the process was interrupted meanwhile.
    """
    outcome: Future[R] = Future()
    ended = threading.Event()
    server_app = ServerApp()

    @server_app.main()
    def _main(grid: Grid, context: Context) -> None:
        outcome.set_running_or_notify_cancel()
        try:
            outcome.set_result(main(_EndingGrid(grid, ended)))
        except Exception as error:
            outcome.set_exception(error)
        finally:
            if ended.is_set():
                _kill_clients()

    with _environment(), _interruptible(ended), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Flower's and Ray's own imports
        import ray
        from flwr.simulation import run_simulation

        backend = _backend(clients, device)
        try:
            start_ray(backend["init_args"])
            run_simulation(server_app, client_app, num_supernodes=clients, backend_config=backend)
        except CampaignError:
            raise
        except Exception as error:
            reason = error.__cause__ or error
            raise CampaignError(
                f"Expected the simulation engine to run, but: {type(reason).__name__}: {reason}"
            ) from error
        finally:
            ended.set()
            if outcome.running():
                wait([outcome], _ENDING_SECONDS)
            ray.shutdown()
    if not outcome.done():
        raise CampaignError("Expected the simulation engine to run, but it ended early.")
    return outcome.result()


def _backend(clients: int, device: str) -> dict[str, dict[str, Any]]:
    cores = min(os.cpu_count() or 1, clients)
    chosen = pick_device(device)
    # Ray hands out CUDA devices only, and hides all but one: a device chosen by number stays as is.
    shared = 1.0 / cores if chosen.type == "cuda" and chosen.index is None else 0.0
    return {
        "client_resources": {"num_cpus": 1, "num_gpus": shared},
        "init_args": {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        },
    }


@contextmanager
def _interruptible(ended: threading.Event) -> Iterator[None]:
    """Make the first interrupt an orderly end, and `KeyboardInterrupt` at the end of the block.

    Raised in the midst of Flower, it would leave a thread that waits for a client for ever, and so
    a process that never ends.  A second interrupt is raised at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        ended.set()
        interrupted.set()

    interrupted = threading.Event()
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted.is_set():
        raise KeyboardInterrupt


def _kill_clients() -> None:
    """Kill the clients' processes, so that the engine does not wait until they have answered."""
    import ray
    from ray._private.state import actors
    from ray._private.worker import global_worker

    if ray.is_initialized():
        # What `ray.kill` does, for actors of which only Flower has the handles.
        engine: Any = global_worker
        for actor in actors(actor_state_name="ALIVE"):
            engine.core_worker.kill_actor(ray.ActorID(bytes.fromhex(actor)), True)


class _EndingGrid(Grid):
    """A grid that releases threads that wait for messages once the engine has ended.

    Flower does not tell its server thread that the clients are gone; it would wait until its
    messages expire and keep the process from ending.
    """

    def __init__(self, grid: Grid, ended: threading.Event) -> None:
        self._grid = grid
        self._ended = ended

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if self._ended.is_set():
            raise CampaignError("Expected answers from owners, but the simulation was ended.")
        return self._grid.pull_messages(message_ids)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run


@contextmanager
def _environment() -> Iterator[None]:
    """Keep Flower quiet and offline while it runs, and put everything back after."""
    before = dict(os.environ)
    threads = torch.get_num_threads()
    logger = logging.getLogger("flwr")
    level = logger.level
    with tempfile.TemporaryDirectory(prefix="disinherit-") as home:
        os.environ.update(_ENVIRONMENT, FLWR_HOME=home)
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
            torch.set_num_threads(threads)
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
