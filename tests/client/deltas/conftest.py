"""Owners of models that changes of roots are added to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.delta_tasks import AnyNetworkOwner
from tests.support.owner import LABELS


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[AnyNetworkOwner]:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        owner.lose_data()
        yield owner


@pytest.fixture
def rooted(tmp_path: Path) -> Iterator[AnyNetworkOwner]:
    """Root r, n fine-tuned from it, a the average of both and of a stranger, and root s below r."""
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        owner.train("r", LABELS, 1)
        first = owner.store.weights("r")
        owner.train("n", ("owl", "yak"), 2, start=[first], steps=10)
        owner.train("s", ("dog", "owl"), 3, start=[first])
        yield owner
