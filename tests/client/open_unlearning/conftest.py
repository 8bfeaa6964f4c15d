"""A folder that has the interface of open-unlearning, and trainers of our own in it."""

import sys
from pathlib import Path

import pytest

from disinherit.client.open_unlearning.checkout import FOLDER_VARIABLE, PYTHON_VARIABLE
from tests import ROOT

TRAINER = (
    f"""
import sys
sys.path.append({str(ROOT)!r})
from tests.support.head_census import shim_torchvision
shim_torchvision()
"""
    + """
from types import SimpleNamespace
import torch


def load_trainer(trainer_cfg, model, train_dataset, data_collator):
    trainer = SimpleNamespace(model=model, state=SimpleNamespace(global_step=0))
    kind = trainer_cfg.handler

    def train():
        torch.manual_seed(trainer_cfg.args.seed)
        trained = [one for one in model.parameters() if one.requires_grad]
        if kind == "Broken":
            raise ValueError("no\\nroom")
        optimizer = torch.optim.SGD(trained, trainer_cfg.args.learning_rate)
        for _ in range(trainer_cfg.args.num_train_epochs):
            batch = data_collator([train_dataset[at] for at in range(len(train_dataset))])
            optimizer.zero_grad()
            loss = -model(**batch["forget"]).loss
            if kind == "GradDiff":
                loss = loss + model(**batch["retain"]).loss
            loss.backward()
            optimizer.step()
            trainer.state.global_step += 1
        if kind == "Wild":
            model.model.norm.weight.data += 1

    trainer.train = train
    return trainer, trainer_cfg.args
"""
)
UNLEARN = """
class ForgetRetainDataset:
    def __init__(self, forget, retain):
        self.forget, self.retain = forget, retain

    def __len__(self):
        return len(self.forget)

    def __getitem__(self, at):
        item = {"forget": self.forget[at]}
        if self.retain:
            item["retain"] = self.retain[at % len(self.retain)]
        return item
"""
HYDRA = """
import json
from contextlib import contextmanager
from pathlib import Path


class Config(dict):
    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


@contextmanager
def initialize_config_dir(version_base, config_dir):
    global folder
    folder = Path(config_dir)
    yield


def compose(config_name):
    found = json.loads((folder / f"{config_name}.yaml").read_text())
    return Config(found, args=Config(found["args"]))
"""
FILES = {
    "src/trainer/__init__.py": TRAINER,
    "src/trainer/utils.py": "def seed_everything(seed): pass\n",
    "src/data/__init__.py": "",
    "src/data/unlearn.py": UNLEARN,
    "src/hydra.py": HYDRA,
    "src/omegaconf.py": "class OmegaConf:\n    set_struct = staticmethod(lambda *_: None)\n",
}
HANDLERS = {"GradDiff": "GradDiff", "GradAscent": "GradAscent", "NPO": "Broken", "WGA": "Wild"}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; NPO breaks, WGA changes what is not in scope, and UNDIAL is not there."""
    folder = tmp_path_factory.mktemp("open-unlearning")
    settings = '{"handler": "%s", "args": {"learning_rate": 0.05, "num_train_epochs": 8}}'
    configs = {f"configs/trainer/{n}.yaml": settings % one for n, one in HANDLERS.items()}
    for name, text in {**FILES, **configs}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def installed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as an owner has set it."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(checkout))
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    return checkout
