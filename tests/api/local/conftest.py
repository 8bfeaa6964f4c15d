"""A family of trained models, and a network of it."""

import copy

import pytest
from torch import nn

from disinherit import Network
from tests.support.blobs import blobs, trained
from tests.support.local_networks import ALL, LABELS, loader


@pytest.fixture(scope="session")
def family() -> dict[str, nn.Module]:
    """A base, its child, the child's child, and a stranger."""
    base = trained(blobs(ALL, 1))
    child = trained(blobs([1, 2], 2), base)
    return {
        "base": base,
        "child": child,
        "grandchild": trained(blobs([1, 2], 3), child),
        "stranger": trained(blobs(ALL, 4)),
    }


@pytest.fixture
def network(family: dict[str, nn.Module]) -> Network:
    models = {name: copy.deepcopy(model) for name, model in family.items()}
    network = Network(labels=LABELS)
    held_out = loader(ALL, 99)
    network.add("base", models["base"], loader(ALL, 1, shuffle=True), evaluate=held_out)
    network.add("child", models["child"], loader([1, 2], 2), parents=["base"], evaluate=held_out)
    network.add("grandchild", models["grandchild"], loader([1, 2], 3), parents=["child"])
    network.add("stranger", models["stranger"], loader(ALL, 4), evaluate=held_out)
    return network
