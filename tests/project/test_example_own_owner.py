"""The example of docs/federation.md runs as it stands there, and its models forget."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from disinherit.client.owner.owner import Owner
from disinherit.common.graph.records import ModelStatus
from disinherit.server.states import TaskState
from disinherit.server.store.store import CoordinatorStore
from tests import ROOT

EXAMPLE = ROOT / "examples" / "own_owner.py"

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_owner", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_models_forget_and_keep_the_rest(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = example.main(tmp_path)

    assert result.outcome == "complete"
    assert {task.state for task in result.tasks.values()} == {TaskState.VERIFIED}
    printed = capsys.readouterr().out
    assert "affected: base child\n" in printed
    line = re.compile(r"^(\S+) +verified +forget +([\d.]+)% +retain +([\d.]+)%$", re.MULTILINE)
    found = {
        model: (float(forget), float(retain)) for model, forget, retain in line.findall(printed)
    }
    assert found.keys() == {"base", "child", "base~forget-three", "child~forget-three"}
    for model in ("base", "child"):
        before, after = found[model], found[f"{model}~forget-three"]
        assert before[0] > 80
        assert after[0] < 5
        assert after[1] > before[1] - 2


def test_the_versions_are_on_record_at_the_owner_and_the_coordinator(
    example: ModuleType, tmp_path: Path
) -> None:
    example.main(tmp_path)

    store = CoordinatorStore(tmp_path / "coordinator.db")
    graph = store.graph()
    store.close()
    owner: Owner
    with example.DigitsOwner(tmp_path, "south") as owner:
        for model in ("child", "child~forget-three"):
            assert owner.store.record(model).digest == graph.model(model).digest
        assert owner.store.record("child").status is ModelStatus.SUPERSEDED
