"""Memory of an owner while it applies the change of a root: a network, and little beside it."""

import json
import os
import subprocess
import sys

import pytest

from tests import ROOT
from tests.support.apply_memory import LARGEST, MODEL

SLACK = 2**21
"""Of Python objects and SQLite's pages: nothing that grows with the model."""


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Case -> bytes beside the process and the message."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the kernel tells no peak that begins later than the process")
    folder = tmp_path_factory.mktemp("large")
    command = [sys.executable, "-m", "tests.support.apply_memory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", ["one", "three", "measured"])
def test_an_apply_takes_one_model_and_its_largest_tensor(taken: dict[str, int], case: str) -> None:
    assert taken[case] <= MODEL + 1.2 * LARGEST + SLACK


def test_more_models_take_no_more_memory(taken: dict[str, int]) -> None:
    assert taken["three"] <= 1.05 * taken["one"] + SLACK
