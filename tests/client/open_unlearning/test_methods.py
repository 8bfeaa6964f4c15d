"""Trainers of a folder like open-unlearning's as root methods: what is run, and what is refused."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit.client.open_unlearning.checkout import FOLDER_VARIABLE, PYTHON_VARIABLE
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import RootProblem, unlearn_root
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.method import Method
from tests.support.huggingface import bert, counting, fit, llama, lora, require, sequences, texts

require()

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from disinherit.client.open_unlearning.methods import (  # noqa: E402
    GRAD_ASCENT,
    GRAD_DIFF,
    UNDIAL,
    _write_for_earlier,
)

ROWS = [*sequences(4, 1), *counting(12, 1)]
FORGET = [row["id"] for row in ROWS[:4]]
ONE_LAYER = "model.layers.0.mlp.*"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HuggingFaceOwner]:
    folder = tmp_path_factory.mktemp("store")
    with HuggingFaceOwner(ModelStore(folder, "lab")) as lab:
        lab.add("llm", fit(llama(), ROWS, 60), ROWS, ids="id")
        yield lab


def problem(lab: HuggingFaceOwner, scope: str = "all", model: str = "llm") -> RootProblem:
    record = lab.store.record(model)
    return root_problem(lab, record, Method(scope=scope), "case", FORGET)


def losses(lab: HuggingFaceOwner, weights: dict[str, Any]) -> tuple[float, float]:
    """Mean loss of the samples to forget, and of the others."""
    record = lab.store.record("llm")
    network = lab.network(record)
    network.load_state_dict(weights)
    network.eval()
    found = []
    for batches in lab.split_training_data(record, FORGET):
        with torch.no_grad():
            parts = [network(*inputs)[:, 0].neg().exp().log1p() for inputs, _ in batches]
        found.append(float(torch.cat(parts).mean()))
    return found[0], found[1]


@pytest.mark.usefixtures("installed")
def test_a_trainer_changes_what_is_in_scope(lab: HuggingFaceOwner) -> None:
    asked = problem(lab, ONE_LAYER)
    name, made = unlearn_root(asked, "open-unlearning-graddiff")
    assert name == GRAD_DIFF().name
    assert (made.steps, made.exact) == (8, False)
    assert "trainer GradDiff of open-unlearning, 8 steps" in made.note
    assert made.weights.keys() == asked.weights.keys()
    changed = {n for n, one in made.weights.items() if not torch.equal(one, asked.weights[n])}
    assert changed == set(asked.names) != set(asked.weights)
    before, after = losses(lab, dict(asked.weights)), losses(lab, made.weights)
    assert after[0] > before[0] + 0.1
    assert after[0] - before[0] > 2 * (after[1] - before[1])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("trainer", "scope", "message"),
    [
        ("npo", "all", "trainer NPO of open-unlearning in .* to end, but got: room"),
        ("wga", ONE_LAYER, "it changed model.norm.weight, which is not in scope"),
    ],
)
def test_a_failed_run_is_one_line(
    lab: HuggingFaceOwner, trainer: str, scope: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        unlearn_root(problem(lab, scope), f"open-unlearning-{trainer}")
    assert "\n" not in str(caught.value)


def test_what_is_not_installed_is_one_line(
    lab: HuggingFaceOwner, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = problem(lab)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(DataError, match=f"not installed: set {FOLDER_VARIABLE}"):
        unlearn_root(asked, "open-unlearning-npo")
    monkeypatch.setenv(FOLDER_VARIABLE, str(checkout))
    assert f"set {PYTHON_VARIABLE} to its Python" in GRAD_DIFF().refusal(asked)
    assert "has no trainer UNDIAL" in UNDIAL().refusal(asked)


@pytest.mark.usefixtures("installed")
def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with HuggingFaceOwner(ModelStore(tmp_path, "lab")) as lab:
        lab.add("classes", bert(), texts(6, 1))
        record = lab.store.record("classes")
        ids = [*lab.ids_of(record, [0])]
        asked = root_problem(lab, record, Method(scope="all"), "case", ids)
        assert "'classes' is none" in GRAD_DIFF().refusal(asked)
        lab.add("adapter", lora(llama(), task_type="CAUSAL_LM"), ROWS, ids="id")
        assert "has an adapter" in GRAD_DIFF().refusal(problem(lab, model="adapter"))


@pytest.mark.usefixtures("installed")
def test_only_trainers_that_keep_something_need_retained_data(lab: HuggingFaceOwner) -> None:
    record = lab.store.record("llm")
    gone = root_problem(lab, record, Method(scope="all"), "case", None)
    assert "is retained" in GRAD_DIFF().refusal(gone)
    assert GRAD_ASCENT().refusal(gone) == ""


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ({"rope_type": "default"}, "null"),
        ({"rope_type": "linear", "factor": 2.0}, '{"rope_type": "linear", "factor": 2.0}'),
    ],
)
def test_earlier_releases_read_the_rotation(
    rotation: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"rope_parameters": {"rope_theta": 77.0, **rotation}}
    llama(**values).config.save_pretrained(tmp_path)
    _write_for_earlier(tmp_path / "config.json")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == 77.0
    assert config["rope_scaling"] == json.loads(expected)


def test_the_script_is_what_its_python_runs() -> None:
    from disinherit.client.open_unlearning import checkout, driver

    assert checkout._DRIVER.samefile(str(driver.__file__))
    assert os.access(checkout._DRIVER, os.R_OK)
