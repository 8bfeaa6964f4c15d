"""Settings for all tests, and the small federation that those of the coordinator start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_fixture import World, build, copy
from hypothesis import settings

# A busy machine must not fail a property test for being slow.
settings.register_profile("disinherit", deadline=None)
settings.load_profile("disinherit")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation of `campaign_fixture`, trained and registered; to be copied, not changed."""
    root = tmp_path_factory.mktemp("built")
    build(root)
    return root


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of it."""
    with copy(built, tmp_path / "world") as world:
        yield world
