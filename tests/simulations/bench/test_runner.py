"""A suite from its declaration to its cells, in processes of their own; and what is left of it."""

import json
from pathlib import Path

import pytest
import torch

from disinherit.common.errors import InputError
from disinherit.simulations.bench.cases import cases
from disinherit.simulations.bench.cells import read_run
from disinherit.simulations.bench.runner import run_suite
from disinherit.simulations.bench.suites import Suite, load_suite
from disinherit.simulations.scenario.settings import OWNER_THREADS
from tests.support import direct_grid

SUITE = """
seeds = [0]
methods = [
  "no-op",
  "head-reset",
  { name = "fiun-published", label = "broken", options = { alpha = -1.0 } },
]

[panel]
samples = 60
tested = 100
shadows = 4
relearn_steps = 2
reference_seeds = 3

[defaults]
dataset = "digits"
network = "mlp"
clients = 3
limit = 60
epochs = EPOCHS
learning_rate = 5e-3

[[cases]]
label = "one class"
forget = ["3"]
"""


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    direct_grid.install(monkeypatch, lambda _: None, cases)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return declared(tmp_path, epochs=12)


def declared(folder: Path, epochs: int) -> Suite:
    path = folder / "tiny.toml"
    path.write_text(SUITE.replace("EPOCHS", str(epochs)))
    return load_suite(str(path))


def run(suite: Suite, folder: Path, said: list[str]) -> list[str]:
    threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)  # as in the engine
    try:
        return run_suite(suite, folder, jobs=2, say=said.append)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_suite_is_run_and_what_failed_is_run_again(suite: Suite, tmp_path: Path) -> None:
    folder, said = tmp_path / "run", list[str]()

    failures = run(suite, folder, said)

    (broken,) = failures
    assert broken.startswith("broken on federated-digits-mlp-class-s0-")
    assert "alpha" in broken
    _, references, cells = read_run(folder)
    assert references[0]["gates"] == []
    (seeds,) = references[0]["spread"].values()
    assert [seed["margin_divergence_forget"] > 0 for seed in seeds] == [True] * 3
    known = cells[1]["models"]["r1"]["metrics"]["margin_divergence_held_out"]
    retrained = references[0]["models"]["r1"]["retrained"]["values"]
    assert known["reference"] == retrained["margin_divergence_held_out"] > 0
    root = references[0]["models"]["r1"]
    assert root["parameters"] == 8 * 8 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert 0 < root["samples"] <= 60 * 9 / 3 + 1, "its share without the class"
    assert [cell["method"] for cell in cells] == ["no-op", "head-reset"]
    assert [cell["setup_cpu_seconds"] for cell in cells] == [0.0, 0.0]
    kept = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert kept == cells
    for model in cells[0]["models"].values():
        accuracy = model["metrics"]["forget_accuracy"]
        assert accuracy["value"] == accuracy["original"]
        assert accuracy["gap"] == accuracy["value"] - accuracy["reference"]
    assert cells[1]["models"]["r1"]["metrics"]["forget_accuracy"]["value"] < 10

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("cells/*/*.json")}
    said.clear()
    assert run(suite, folder, said) == failures
    assert [line for line in said if "broken" not in line] == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("cells/*/*.json")} == before

    with pytest.raises(InputError, match="another one"):
        run(declared(tmp_path, epochs=13), folder, said)


@pytest.mark.slow
def test_gates_that_are_not_passed_fail_the_run(tmp_path: Path) -> None:
    """A network that was hardly trained knows nothing that could be forgotten."""
    suite = declared(tmp_path, epochs=1)

    failures = run(suite, tmp_path / "run", [])

    assert any("passes the panel, so forgetting would not show" in reason for reason in failures)


def test_jobs_are_positive(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs >= 1"):
        run_suite(suite, tmp_path / "run", jobs=0)
    assert not (tmp_path / "run").exists()
