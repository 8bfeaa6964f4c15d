"""Trainers of open-unlearning itself, where it is installed (docs/huggingface.md)."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from disinherit.client.open_unlearning.checkout import FOLDER_VARIABLE
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import unlearn_root
from disinherit.client.store.store import ModelStore
from disinherit.common.method import Method
from tests.support.huggingface import Row, counting, fit, llama, loss_of, require, sequences

require()
pytestmark = pytest.mark.skipif(
    FOLDER_VARIABLE not in os.environ, reason="open-unlearning is not installed"
)

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402

FORGET, KEPT = sequences(4, 1), counting(12, 1)
SETTINGS = {
    "learning_rate: 1e-5": "learning_rate: 3e-3",
    "learning_rate: 1e-4": "learning_rate: 3e-3",
    "gradient_accumulation_steps: 4": "gradient_accumulation_steps: 1",
    "layers\\.7": "layers\\.1",
    "retain_loss_eps: ???": "retain_loss_eps: 0.5",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with settings for a tiny model, as an owner would write them."""
    real = Path(os.environ[FOLDER_VARIABLE]).absolute()
    folder = tmp_path / "open-unlearning"
    folder.mkdir()
    (folder / "src").symlink_to(real / "src")
    (folder / ".venv").symlink_to(real / ".venv")
    shutil.copytree(real / "configs", folder / "configs")
    for file in (folder / "configs" / "trainer").iterdir():
        text = file.read_text()
        for old, new in SETTINGS.items():
            text = text.replace(old, new)
        file.write_text(text)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


def mean_loss(model: torch.nn.Module, rows: list[Row]) -> float:
    with torch.no_grad():
        return float(torch.stack([loss_of(model, row) for row in rows]).mean())


@pytest.mark.parametrize(
    "trainer",
    ["ceu", "gradascent", "graddiff", "npo", "pdu", "rmu", "satimp", "simnpo", "undial", "wga"],
)
def test_a_root_forgets_by_a_trainer(trainer: str, folder: Path, tmp_path: Path) -> None:
    model = fit(llama(num_hidden_layers=2, vocab_size=128), [*FORGET, *KEPT], 80)
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab:
        record = lab.add("m", model, [*FORGET, *KEPT], ids="id")
        problem = root_problem(
            lab, record, Method(scope="all"), "case", [row["id"] for row in FORGET]
        )
        name, made = unlearn_root(problem, f"open-unlearning-{trainer}")
        before = mean_loss(model, FORGET), mean_loss(model, KEPT)
        model.load_state_dict(made.weights, strict=False)
        after = mean_loss(model, FORGET), mean_loss(model, KEPT)
    assert name == f"open-unlearning-{trainer}"
    assert made.steps in (5, 10)  # passes over the samples
    assert after[0] > before[0] + 0.2
