"""A family of models in folders, made once."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two fine-tunes, an adapter, a folded one, a merge and an int8 copy."""
    from tests.support import zoo  # its libraries take seconds

    root = tmp_path_factory.mktemp("zoo")
    zoo.family(root)
    return root


@pytest.fixture
def copy(family: Path, tmp_path: Path) -> Path:
    """A copy of the family, to change."""
    shutil.copytree(family, tmp_path / "zoo")
    return tmp_path / "zoo"
