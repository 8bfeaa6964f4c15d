"""A store of one owner, and its folder."""

from pathlib import Path
from typing import Any

import pytest

from disinherit.client.store.store import ModelStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "anna"


@pytest.fixture
def store(root: Path) -> Any:
    with ModelStore(root, "anna") as store:
        yield store
