"""Fixtures of campaigns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.campaign import World, copy, make_request


@pytest.fixture
def submitted(built: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of the federation in which request q, to forget cat at r1, was submitted."""
    with copy(built, tmp_path / "world") as world:
        world.coordinator.submit(make_request({"r1": ("cat",)}))
        yield world
