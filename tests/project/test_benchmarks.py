"""Every benchmark runs, on small sizes; the page shows the stored figures. No speed is asserted."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not in a checkout")


def names(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    found: tuple[str, ...] = importlib.import_module("run").BENCHMARKS
    return found


def execute(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=environment
    )


@pytest.mark.slow
def test_every_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Installing an agent takes a package index; that it runs alone has a test of its own.
    listed = [name for name in names(monkeypatch) if name != "agent_install"]
    done = execute("run.py", "--reduced", "--out", str(tmp_path), *listed)
    assert done.returncode == 0, done.stderr
    assert {file.stem for file in tmp_path.iterdir()} == set(listed)
    for file in tmp_path.iterdir():
        stored = json.loads(file.read_text())
        assert stored["environment"]["reduced"]
        assert stored["rows"]
        assert all(claim["value"] >= 0 for claim in stored["claims"])


def test_the_page_shows_the_stored_figures() -> None:
    done = execute("render.py", "--check")
    assert done.returncode == 0, done.stderr


def test_the_page_of_packages_is_made_from_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what each extra is for, and which lowest versions are tried."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    packages = importlib.import_module("packages")
    stored = json.loads(packages.STORED.read_text())
    assert packages.PAGE.read_text() == packages.page(stored), "packages.py --render"


def test_the_page_of_the_agent_has_the_stored_figures() -> None:
    stored = json.loads((ROOT / "docs/figures/performance/agent_install.json").read_text())
    rows = {row["what"]: row for row in stored["rows"]}
    agent, pytorch = rows["start: an agent, ready to dial"], rows["start: PyTorch alone"]
    text = " ".join((ROOT / "docs/agent.md").read_text().split())
    assert f"computes for {agent['CPU seconds']} s, {pytorch['CPU seconds']} s of them" in text
    assert f"takes {agent['MB of memory']} MB of memory" in text


def test_reduced_figures_do_not_replace_the_stored_ones() -> None:
    done = execute("run.py", "--reduced")
    assert done.returncode == 2
    assert "Expected --out with --reduced" in done.stderr
