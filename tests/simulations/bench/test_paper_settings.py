"""The other settings end to end on real owners: what is inherited, forgotten and replayed."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.simulations.report.html import render_html
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.scenario.scenarios import load_scenario
from disinherit.simulations.scenario.settings import Settings, parse_forget
from tests.support import direct_grid

DIGITS = load_dataset("digits")

MIXED = """
kind = "transfer"
roots = ["base"]
edges = ["base -> tuned", "base -> renamed", { edge = "tuned, base -> mean", kind = "federated" }]
aliases = { three = "3" }

[models]
base = { owner = 0 }
tuned = { train = "head", data = "50-100%", owner = 1 }
renamed = { classes = ["9", "three", "0"], train = "head", head = "new", owner = 2 }
mean = { owner = 1 }
"""


def run(scenario: str, folder: Path, *tokens: str, **changes: object) -> RunReport:
    topology = load_scenario(scenario)
    forget = parse_forget(tokens, DIGITS, topology)
    settings = Settings(
        "digits", forget, topology, "mlp", clients=3, limit=60, epochs=8, learning_rate=5e-3
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        direct_grid.install(monkeypatch)
        return run_scenario(dataclasses.replace(settings, **changes), folder)  # type: ignore[arg-type]


def models(report: RunReport) -> dict[str, ModelFigures]:
    return {model["id"]: model for model in report["models"]}


def weights(folder: Path, report: RunReport, model: str) -> dict[str, Tensor]:
    owner = models(report)[model]["owner"]
    with ModelStore(folder / "owners" / owner, owner) as store:
        return store.weights(model)


def has_forgotten(model: ModelFigures) -> bool:
    before, after = model["before"]["forget_accuracy"], model["after"]["forget_accuracy"]
    assert before is not None
    assert after is not None
    return after <= min(before, 10)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunReport]:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.toml").write_text(MIXED)
    return folder / "run", run(str(folder / "mixed.toml"), folder / "run", "3")


@pytest.mark.parametrize(
    ("scenario", "tokens"),
    [
        ("incremental", ["3"]),
        ("distributed", ["3"]),
        ("distributed-back", ["3"]),
        ("transfer", ["3"]),
        ("federated-three-roots", ["3", "5", "7"]),
        ("chain-5", ["3"]),
    ],
)
def test_every_affected_model_of_a_setting_forgets_and_keeps_the_rest(
    scenario: str, tokens: list[str], tmp_path: Path
) -> None:
    report = run(scenario, tmp_path, *tokens)
    assert report["campaign"]["outcome"] == "complete"
    assert report["repeat"] is not None
    assert report["repeat"]["changed"] == 0
    for model in models(report).values():
        if model["role"] == "untouched":
            assert model["digest_after"] == model["digest_before"]
            continue
        assert model["forgotten"]
        assert has_forgotten(model)
        before, after = model["before"]["retain_accuracy"], model["after"]["retain_accuracy"]
        assert before is not None
        assert after is not None
        assert after > before - 5
        assert model["retrained"] is not None
        assert model["retrained"]["forget_accuracy"] == 0
    assert f"{scenario} fleet on digits" in render_html(report)


def test_a_growing_head_is_evaluated_on_the_classes_it_knows(tmp_path: Path) -> None:
    report = run("incremental", tmp_path, "3")
    sizes = {model: len(found["before"]["confusion"]) for model, found in models(report).items()}
    assert sizes == {"u0": 5, "u1": 7, "u2": 9, "u3": 10}
    labels = {node["id"]: node["labels"] for node in report["graph"]["nodes"]}
    assert labels["u0"] == list("01234")
    assert {m: len(found["retrained"]["confusion"]) for m, found in models(report).items()} == sizes  # type: ignore[index]


def test_head_only_training_leaves_the_features_bit_for_bit(mixed: tuple[Path, RunReport]) -> None:
    base = weights(*mixed, "base")
    for child in ("tuned", "renamed"):
        found = weights(*mixed, child)
        for name, value in found.items():
            if name.startswith("features."):
                assert torch.equal(value, base[name])
        assert not (
            found["head.bias"].shape == base["head.bias"].shape
            and torch.equal(found["head.bias"], base["head.bias"])
        )


def test_a_class_is_followed_under_another_name(mixed: tuple[Path, RunReport]) -> None:
    found = models(mixed[1])
    assert found["base"]["forgotten"] == ["3"]
    assert found["renamed"]["forgotten"] == ["three"]
    assert has_forgotten(found["renamed"])
    assert found["renamed"]["retrained"] is not None
    assert found["renamed"]["retrained"]["forget_accuracy"] == 0


def test_a_model_that_only_inherited_a_class_forgets_it_too(mixed: tuple[Path, RunReport]) -> None:
    node = next(n for n in mixed[1]["graph"]["nodes"] if n["id"] == "tuned")
    assert node["samples_per_class"]["3"] == 0
    assert models(mixed[1])["tuned"]["forgotten"] == ["3"]
    assert has_forgotten(models(mixed[1])["tuned"])


def test_a_new_head_without_the_class_has_nothing_to_forget(tmp_path: Path) -> None:
    report = run("transfer-new-head", tmp_path, "3", limit=20, epochs=6)
    found = models(report)["u4"]
    assert found["role"] == "affected"
    assert found["forgotten"] == []
    assert found["after"]["forget_accuracy"] is None
    assert found["digest_after"] == found["digest_before"]
    page = render_html(report)
    assert "3 affected models that know the classes" in page
    assert "u3 and u4 derived from them, with none of the classes among the labels" in page
    assert "could not be measured" not in page
