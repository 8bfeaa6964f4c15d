"""Starts of trainings: averages, and head rows placed by class."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.run.replaying import start_of
from disinherit.simulations.scenario.forgetting import Forgetting, SampleRequest
from disinherit.simulations.scenario.inheriting import Weights, starting_weights
from disinherit.simulations.scenario.label_spaces import LabelSpaces, label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.topology import Derivation, ParentEdge, Topology

NAMES = tuple("abcdef")


def fresh(classes: int) -> Classifier:
    """A network whose head says which class count it was built for."""
    network = Classifier(nn.Identity(), 2, classes)
    nn.init.constant_(network.head.weight, -classes)
    nn.init.constant_(network.head.bias, -classes)
    return network


def head_of(labels: tuple[str, ...], scale: float) -> Weights:
    """Weights in which every row says which class it is of and whose."""
    numbers = torch.tensor([float(NAMES.index(name) + 1) for name in labels]) * scale
    return {"head.weight": numbers.unsqueeze(1).repeat(1, 2), "head.bias": numbers}


@given(st.data())
def test_a_row_is_the_average_over_the_parents_that_know_its_class(data: st.DataObject) -> None:
    spaces = st.lists(st.sampled_from(NAMES), unique=True, min_size=2).map(tuple)
    child, *known = (data.draw(spaces) for _ in range(3))
    shares = [data.draw(st.integers(1, 9)) for _ in known]
    new_head = data.draw(st.booleans())
    derivation = Derivation(
        "c", tuple(ParentEdge(f"p{i}", weight=w) for i, w in enumerate(shares)), new_head=new_head
    )
    topology = Topology("t", (Derivation("p0"), Derivation("p1"), derivation), ("c",))
    labels = {"c": child, "p0": known[0], "p1": known[1]}
    weights = {f"p{i}": head_of(own, 10.0**i) for i, own in enumerate(known)}
    start = starting_weights(
        derivation, LabelSpaces(topology, NAMES, labels, labels), weights, fresh
    )
    assert start is not None
    assert list(start) == ["head.weight", "head.bias"]
    for row, name in enumerate(child):
        holders = [i for i, own in enumerate(known) if name in own and not new_head]
        number = NAMES.index(name) + 1
        expected = float(-len(child))
        if holders:
            total = sum(shares[i] for i in holders)
            expected = sum(number * 10.0**i * shares[i] / total for i in holders)
        torch.testing.assert_close(start["head.bias"][row].item(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            start["head.weight"][row].tolist(), [expected] * 2, rtol=1e-5, atol=1e-5
        )


def test_features_are_averaged_and_counters_the_first_parents() -> None:
    def network(classes: int) -> Classifier:
        return Classifier(nn.BatchNorm1d(2), 2, classes)

    one, two = network(3).state_dict(), network(3).state_dict()
    one["features.weight"], two["features.weight"] = torch.ones(2), torch.full((2,), 5.0)
    one["features.num_batches_tracked"] = torch.tensor(7)
    derivation = Derivation("c", (ParentEdge("one", weight=3), ParentEdge("two", weight=1)))
    topology = Topology("t", (Derivation("one"), Derivation("two"), derivation), ("c",))
    labels = {"one": NAMES[:3], "two": NAMES[:3], "c": NAMES[:4]}
    spaces = LabelSpaces(topology, NAMES, labels, labels)
    start = starting_weights(derivation, spaces, {"one": one, "two": two}, network)
    assert start is not None
    assert start["features.weight"].tolist() == [2.0, 2.0]
    assert start["features.num_batches_tracked"].item() == 7
    assert start["head.weight"].shape == (4, 2)
    network(4).load_state_dict(start)


def test_a_model_without_parents_starts_from_the_common_initialisation() -> None:
    topology = Topology("t", (Derivation("a"),), ("a",))
    spaces = LabelSpaces(topology, NAMES, {"a": NAMES}, {"a": NAMES})
    assert starting_weights(topology.derivations[0], spaces, {}, fresh) is None


def test_who_has_left_has_no_share_in_the_replayed_average() -> None:
    """A federation without a client averages what the others send, and not its untrained start."""
    topology = Topology(
        "fl",
        (
            Derivation("w0", owner=0),
            *(Derivation(f"w{i}", (ParentEdge("w0"),), owner=i) for i in (1, 2, 3)),
            Derivation("u0", tuple(ParentEdge(f"w{i}", weight=i) for i in (1, 2, 3)), owner=0),
            Derivation("alone", (ParentEdge("w1"),), owner=0),
        ),
        ("u0",),
    )
    settings = Settings("digits", {}, topology, network="mlp", clients=4)
    spaces = label_spaces(topology, load_dataset("digits"))
    forgetting = Forgetting(settings, spaces, SampleRequest(1, "", ()))
    assert forgetting.roots == ("w1",)
    weights = {f"w{i}": {"x": torch.tensor([10.0**i])} for i in range(4)}
    u0, alone = topology.derivations[-2:]

    def start(derivation: Derivation, *, replay: bool) -> float:
        found = start_of(derivation, forgetting, weights, replay=replay)
        assert found is not None
        return float(found["x"])

    assert start(u0, replay=False) == (10 + 2 * 100 + 3 * 1000) / 6
    assert start(u0, replay=True) == (2 * 100 + 3 * 1000) / 5
    assert start(alone, replay=True) == 10, "there is nobody else"
