"""The base install: a network of models in one process works without the packages of any extra."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from disinherit.common.extras import EXTRAS
from tests import ROOT

WITHOUT = """
import json, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        missing = name.partition(".")[0] in packages
        return None if missing else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
packages = json.loads(sys.argv[1])
sys.meta_path[:] = map(Without, sys.meta_path)
"""
"""Begins a program in which the packages of all extras are as if they were not installed."""

DATA = """
from torch.utils.data import DataLoader
from tests.support.blobs import blobs, trained
base = trained(blobs([0, 1, 2], seed=1))
child = trained(blobs([0, 1, 2], seed=2), base)
base_loader, child_loader, test_loader = (
    DataLoader(blobs([0, 1, 2], seed=seed), 32) for seed in (1, 2, 99)
)
"""


SIMULATE = ("simulate", "federated", "--forget", "3", "--out", "run")
LACKING: Mapping[str, tuple[str, ...]] = {
    "agent": ("request", "list"),
    "server": ("serve", "--database", "a.db", "--tokens", "b.toml", "--plaintext"),
    "postgresql": (
        *("serve", "--plaintext", "--tokens", "t.toml", "--packets", "packets"),
        *("--database", "postgresql+psycopg://a/b"),
    ),
    "ui": ("ui",),
    "simulation": ("demo",),
    "hub": (*SIMULATE, "--dataset", "cifar100"),
    "vision": (*SIMULATE, "--dataset", "digits", "--network", "timm/resnet10t"),
    "pretrained": (*SIMULATE, "--dataset", "digits", "--network", "efficientnet-lite0"),
    "family": ("bench", "family", "--quick", "--out", "family.json"),
}
"""Extra -> what is asked of `disinherit` where none of its packages is installed."""

IN_PYTHON = {
    "server": "import disinherit; disinherit.Coordinator",
    "flower": "import disinherit; disinherit.build_client_app",
    "huggingface": "import disinherit.huggingface",
}
ELSEWHERE = {
    "deploy": "test_up.py: a program is looked for, not a package",
    "mlflow": "test_request_export.py",
    "docs": "for contributors",
}


def without_extras(
    program: str, *extras: str, words: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own that has no package of some extras, or of any."""
    packages = [name for name, extra in EXTRAS.items() if not extras or extra in extras]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program, json.dumps(packages), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_five_lines_run_with_the_base_install() -> None:
    page = (ROOT / "README.md").read_text()
    example = next(
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Network(" in text
    )
    done = without_extras(DATA + example)
    assert done.returncode == 0, done.stderr
    assert "forget cat at base: 2 of 2 affected models verified, 1 on held-out data" in done.stdout


COMMAND = """
from disinherit.cli.main import run
sys.exit(run(sys.argv[2:]))
"""


def test_every_extra_has_something_that_lacks_it() -> None:
    assert {*LACKING, *IN_PYTHON, *ELSEWHERE} == set(EXTRAS.values())


@pytest.mark.parametrize("extra", LACKING)
def test_a_command_that_lacks_an_extra_says_in_one_line_what_to_install(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.toml").touch()
    others = ("huggingface",) if extra == "family" else ()  # which it brings
    done = without_extras(COMMAND, extra, *others, words=LACKING[extra])
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"pip install '.[{extra}]'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["t.toml"]


@pytest.mark.parametrize("extra", IN_PYTHON)
def test_a_name_that_lacks_an_extra_says_what_to_install(extra: str) -> None:
    done = without_extras(IN_PYTHON[extra], extra)
    assert done.returncode == 1
    assert f"pip install '.[{extra}]'" in done.stderr.splitlines()[-1]
