"""The engine: what it leaves behind, whose errors come out, and one run on real Ray."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from disinherit.common.errors import CampaignError, InputError, RequestError
from disinherit.simulations.bench.cases.cases import CaseSpec, build_cases, open_case
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.simulations.run import engine
from disinherit.simulations.run.engine import check_engine, simulate
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.scenario.scenarios import load_scenario
from disinherit.simulations.scenario.settings import OWNER_THREADS, Settings
from tests.support import direct_grid
from tests.support.direct_grid import DirectGrid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import flwr.simulation

Runner = Callable[[ServerApp, dict[str, Any]], None]


def run_in_thread(server_app: ServerApp, _: dict[str, Any]) -> None:
    """What Flower does, without clients: call the server in a thread and wait for it."""
    grid = DirectGrid(ClientApp(), 1)
    context: Any = SimpleNamespace(state=None)
    thread = threading.Thread(target=server_app, args=(grid, context))
    thread.start()
    thread.join(20)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Runner], None]:
    """Put something in the place of Flower's `run_simulation`."""

    def install(runner: Runner) -> None:
        def run_simulation(
            server_app: ServerApp,
            client_app: ClientApp,
            num_supernodes: int,
            backend_config: dict[str, Any],
        ) -> None:
            assert isinstance(client_app, ClientApp)
            runner(server_app, {**backend_config, "nodes": num_supernodes})

        monkeypatch.setattr(engine, "start_ray", lambda _: None)
        monkeypatch.setattr(flwr.simulation, "run_simulation", run_simulation)

    return install


def test_what_main_returns_is_returned(fake: Callable[[Runner], None]) -> None:
    fake(run_in_thread)
    assert simulate(lambda grid: list(grid.get_node_ids()), ClientApp(), 1, "cpu") == [1]


def test_what_main_raises_is_raised_as_itself_even_while_another_is_handled(
    fake: Callable[[Runner], None],
) -> None:
    """Flower itself drops it where the caller is handling an exception."""
    fake(run_in_thread)

    def main(_: Grid) -> None:
        raise RequestError("mine")

    try:
        raise KeyError("another")
    except KeyError:
        with pytest.raises(RequestError, match="mine"):
            simulate(main, ClientApp(), 1, "cpu")


def test_a_failure_of_the_engine_says_why(fake: Callable[[Runner], None]) -> None:
    def crash(_: ServerApp, __: dict[str, Any]) -> None:
        try:
            raise ValueError("no room for an actor")
        except ValueError as error:
            raise RuntimeError("An error was encountered. Ending simulation.") from error

    fake(crash)
    with pytest.raises(CampaignError, match="to run, but: ValueError: no room for an actor"):
        simulate(lambda grid: None, ClientApp(), 1, "cpu")


def test_an_engine_that_ends_without_calling_main_is_an_error(
    fake: Callable[[Runner], None],
) -> None:
    fake(lambda server_app, config: None)
    with pytest.raises(CampaignError, match="ended early"):
        simulate(lambda grid: None, ClientApp(), 1, "cpu")


def test_a_main_that_waits_for_messages_is_released_when_the_engine_ends(
    fake: Callable[[Runner], None],
) -> None:
    threads: list[threading.Thread] = []
    waiting = threading.Event()

    def leave(server_app: ServerApp, _: dict[str, Any]) -> None:
        threads.append(threading.Thread(target=server_app, args=(DirectGrid(ClientApp(), 1), None)))
        threads[0].start()
        waiting.wait(20)

    def main(grid: Grid) -> None:
        while True:
            list(grid.pull_messages(["never"]))
            waiting.set()
            time.sleep(0.01)

    fake(leave)
    with pytest.raises(CampaignError, match="the simulation was ended"):
        simulate(main, ClientApp(), 1, "cpu")
    threads[0].join(5)
    assert not threads[0].is_alive()


def test_an_interrupt_ends_in_order_and_is_raised(fake: Callable[[Runner], None]) -> None:
    ended: list[str] = []

    def main(grid: Grid) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                list(grid.pull_messages(["never"]))
                time.sleep(0.01)
        finally:
            ended.append("main")

    before = signal.getsignal(signal.SIGINT)
    fake(run_in_thread)
    with pytest.raises(KeyboardInterrupt):
        simulate(main, ClientApp(), 1, "cpu")
    assert ended == ["main"]
    assert signal.getsignal(signal.SIGINT) is before


def test_in_a_thread_of_its_own_signals_are_left_alone(fake: Callable[[Runner], None]) -> None:
    fake(run_in_thread)
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.append(simulate(lambda grid: 7, ClientApp(), 1, "cpu"))
    )
    thread.start()
    thread.join(20)
    assert found == [7]


def test_a_run_is_offline_and_quiet_and_leaves_no_trace(
    fake: Callable[[Runner], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.delenv("FLWR_HOME", raising=False)
    before, level = dict(os.environ), logging.getLogger("flwr").level
    threads = torch.get_num_threads()
    inside: dict[str, str] = {}

    def look(server_app: ServerApp, _: dict[str, Any]) -> None:
        inside.update(os.environ)
        assert Path(inside["FLWR_HOME"]).is_dir()
        assert not logging.getLogger("flwr").isEnabledFor(logging.ERROR)
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)
        os.environ["PYTHONPATH"] = "left behind by the engine"
        torch.set_num_threads(threads + 1)
        run_in_thread(server_app, {})

    fake(look)
    simulate(lambda grid: None, ClientApp(), 1, "cpu")
    assert inside["FLWR_TELEMETRY_ENABLED"] == "0"
    assert inside["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert inside["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert inside["RAY_USAGE_STATS_ENABLED"] == "0"
    assert inside["OMP_NUM_THREADS"] == "1"
    assert dict(os.environ) == before
    assert logging.getLogger("flwr").level == level
    assert torch.get_num_threads() == threads
    assert not Path(inside["FLWR_HOME"]).exists()


@pytest.mark.parametrize(
    ("device", "cores", "clients", "share"),
    [
        ("cpu", 8, 3, 0.0),
        ("cuda", 8, 4, 0.25),
        ("cuda", 2, 50, 0.5),
        ("cuda:1", 8, 4, 0.0),  # Ray would hide all but one device
        ("mps", 8, 4, 0.0),  # Ray knows no such device
    ],
)
def test_cores_and_accelerators_are_shared_out(
    device: str,
    cores: int,
    clients: int,
    share: float,
    fake: Callable[[Runner], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs: list[dict[str, Any]] = []

    def look(server_app: ServerApp, config: dict[str, Any]) -> None:
        configs.append(config)
        run_in_thread(server_app, config)

    fake(look)
    monkeypatch.setattr(engine, "pick_device", torch.device)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    simulate(lambda grid: None, ClientApp(), clients, device)
    (config,) = configs
    assert config["nodes"] == clients
    assert config["client_resources"] == {"num_cpus": 1, "num_gpus": share}
    assert config["init_args"]["num_cpus"] == min(cores, clients)


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install '\.\[simulation\]'"):
        check_engine()


SMALL = Settings(
    "digits",
    {"r1": ("3",)},
    network="mlp",
    clients=2,
    limit=60,
    epochs=8,
    learning_rate=5e-3,
)


def models(report: RunReport) -> dict[str, ModelFigures]:
    return {model["id"]: model for model in report["models"]}


@pytest.mark.slow
def test_the_main_job_on_the_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One run on Ray gives what one in this process gives, and run again it changes no byte."""
    threads = set(threading.enumerate())
    report = run_scenario(SMALL, tmp_path / "ray")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not [
        t for t in threading.enumerate() if t not in threads and not t.daemon and t.is_alive()
    ]

    written = json.loads((tmp_path / "ray" / "report.json").read_text())
    assert check_report(written) == report
    assert report["campaign"]["outcome"] == "complete"
    assert report["repeat"] == {"changed": 0, "already_applied": 5}
    for model in ("r1", "r2", "r3", "r4", "r6"):
        found = models(report)[model]
        before, after = found["before"]["forget_accuracy"], found["after"]["forget_accuracy"]
        assert before is not None
        assert after is not None
        assert after < before / 2
    for model in ("d", "s"):
        found = models(report)[model]
        assert found["digest_after"] == found["digest_before"]

    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = run_scenario(SMALL, tmp_path / "ray")
    assert again["campaign"]["outcome"] == "unchanged"
    assert again["repeat"] == {"changed": 0, "already_applied": 5}
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    direct_grid.install(monkeypatch)
    before_threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)
    try:
        direct = run_scenario(SMALL, tmp_path / "direct")
    finally:
        torch.set_num_threads(before_threads)
    for model, found in models(report).items():
        assert found["digest_before"] == models(direct)[model]["digest_before"]
        assert found["digest_after"] == models(direct)[model]["digest_after"]
        assert found["retrained"] == models(direct)[model]["retrained"]


@pytest.mark.slow
def test_several_cases_in_one_start_of_the_real_engine(tmp_path: Path) -> None:
    """Scenarios of different shapes and sizes; a replay in this process gives the same weights."""
    growing = load_scenario("incremental")
    specs = [
        CaseSpec(SMALL),
        CaseSpec(dataclasses.replace(SMALL, forget={}, clients=3), "samples", 10),
        CaseSpec(dataclasses.replace(SMALL, forget={"u0": ("3",)}, scenario=growing)),
        CaseSpec(dataclasses.replace(SMALL, forget={}), "backdoor", 5),
    ]
    build_cases(specs, tmp_path)
    for spec in specs:
        case = open_case(spec, tmp_path)
        for model, weights in case.replay().items():
            stored = case.subjects[model].retrained
            assert all(torch.equal(weights[name], stored[name]) for name in stored)


INTERRUPTED = """
import os, signal, sys, threading
from pathlib import Path
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.scenario.settings import Settings

def say(message):
    if message.startswith("trained r1 "):  # r2 is being trained soon after
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

try:
    run_scenario(
        Settings("digits", {"r1": ("3",)}, clients=2, epochs=20), Path(sys.argv[1]), say
    )
except KeyboardInterrupt:
    import ray
    print("interrupted", ray.is_initialized())
"""


@pytest.mark.slow
def test_an_interrupted_run_ends_soon_and_leaves_no_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout == "interrupted False\n"
    assert done.stderr == ""
    assert done.returncode == 0
    assert not (tmp_path / "run" / "report.json").exists()
