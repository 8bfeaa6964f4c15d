"""Ray that does not come up at first: started again, and nothing is left of the first attempt."""

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disinherit.common.errors import CampaignError
from disinherit.simulations.run.engine import start_ray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    import ray._private.node

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves files open

ARGUMENTS = {"address": "local", "num_cpus": 1, "include_dashboard": False, "log_to_driver": False}


@pytest.fixture(autouse=True)
def afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    yield
    ray.shutdown()
    gc.collect()  # what Ray leaves is found here, and not in the midst of another test


def late(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Have Ray give up waiting for its first process so many times; returns what it waited for."""
    waited: list[str] = []
    node: Any = ray._private.node
    wait = node.wait_for_persisted_port

    def waiting(*args: Any, **options: Any) -> Any:
        waited.append(str(args))
        if len(waited) <= times:
            raise RuntimeError("Timed out waiting for file gcs_server_port")
        return wait(*args, **options)

    monkeypatch.setattr(node, "wait_for_persisted_port", waiting)
    return waited


def servers() -> int:
    """How many processes of that kind this process has started and not ended."""
    found = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text, command = status.read_text(), (status.parent / "cmdline").read_text()
        except OSError:
            continue  # it has just ended
        found += f"PPid:\t{os.getpid()}\n" in text and "gcs_server" in command
    return found


@pytest.mark.slow
def test_it_is_started_once_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited = late(monkeypatch, 1)
    start_ray(ARGUMENTS)
    assert len(waited) > 1
    assert servers() == 1
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert "attempt 2 of 3" in caplog.text


@pytest.mark.slow
def test_when_it_never_comes_up_it_is_said_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late(monkeypatch, 99)
    with pytest.raises(CampaignError, match=r"in 3 attempts: .*gcs_server_port"):
        start_ray(ARGUMENTS)
    assert servers() == 0
    assert not ray.is_initialized()
