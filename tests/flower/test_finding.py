"""The owner app that the server finds in the bundle of a run."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import flower_app  # noqa: F401  (first of all that imports Flower)

from flwr.supercore.object_ref import load_app  # isort: skip

from disinherit.common.errors import InputError  # isort: skip
from disinherit.flower.finding import find_app  # isort: skip
from disinherit.flower.owner_apps import OwnerApp  # isort: skip

MODULE = """
from flwr.clientapp import ClientApp
from disinherit.flower import owner_app
from tests.flower.test_finding import pause

pause()
app = owner_app(ClientApp(), model=list, data=list)
stock = ClientApp()
"""
PROJECT = """
[project]
name = "found"
version = "1.0.0"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.components]
serverapp = "found_server:app"
clientapp = "{}"
"""
SECONDS = 60.0
PAUSED = threading.Event()
GO_ON = threading.Event()


def pause() -> None:
    PAUSED.set()
    assert GO_ON.wait(SECONDS)


Bundle = Callable[[str], tuple[Any, Path]]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bundle]:
    """Installs a run's bundle that names a ClientApp; returns the run's grid and the folder."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    PAUSED.clear()
    GO_ON.clear()
    run = SimpleNamespace(fab_id="me/found", fab_version="1.0.0", fab_hash="0123456789")
    folder = tmp_path / "apps" / "me.found.1.0.0.01234567"
    folder.mkdir(parents=True)
    (folder / "found_client.py").write_text(MODULE)
    (folder / "found_server.py").write_text("app = None")

    def install(named: str) -> tuple[Any, Path]:
        (folder / "pyproject.toml").write_text(PROJECT.format(named))
        return SimpleNamespace(run=run), folder

    yield install
    sys.modules.pop("found_client", None)


def test_the_engine_finds_the_app_while_the_server_imports_it(bundle: Bundle) -> None:
    """Flower's simulation engine loads the ClientApp in one thread, and the server in another."""
    grid, folder = bundle("found_client:app")
    with ThreadPoolExecutor(2) as threads:
        server = threads.submit(find_app, grid)
        assert PAUSED.wait(SECONDS), server.exception()
        engine = threads.submit(load_app, "found_client:app", RuntimeError, folder)
        try:
            with pytest.raises(TimeoutError):  # it waits, as the module is half imported
                engine.result(timeout=0.5)
        finally:
            GO_ON.set()
    assert isinstance(server.result(), OwnerApp)
    assert engine.result() is server.result()


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (
            "found_client:ap",
            "Expected ClientApp 'found_client:ap' that the server can import, .* "
            "Unable to load attribute ap from module found_client",
        ),
        ("found_clint:app", "No module named 'found_clint'"),
        ("found_client", "Missing attribute in found_client"),
        (
            "found_client:stock",
            "Expected found_client:stock to be an owner app, .* it is ClientApp",
        ),
    ],
)
def test_what_is_no_owner_app_is_refused(bundle: Bundle, named: str, reason: str) -> None:
    grid, _ = bundle(named)
    GO_ON.set()
    with pytest.raises(InputError, match=reason) as raised:
        find_app(grid)
    assert "\n" not in str(raised.value)
