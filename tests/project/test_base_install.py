"""The base install: a network of models in one process works without the packages of any extra."""

import json
import os
import re
import subprocess
import sys

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


def without_extras(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own that has no package of an extra."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program, json.dumps(list(EXTRAS))],
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


def test_a_name_that_needs_more_says_what_to_install() -> None:
    done = without_extras("import disinherit; disinherit.Coordinator")
    assert done.returncode == 1
    assert "Expected the package sqlalchemy for disinherit.Coordinator" in done.stderr
    assert "[server]" in done.stderr
