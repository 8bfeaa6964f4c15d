"""What a network refuses, in one line, and leaves as it was."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit import DisinheritError, Method, Network
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from tests.support.blobs import blobs, trained
from tests.support.local_networks import ALL, LABELS, added, loader


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "base"}, "a model 'base' was added before"),
        ({"name": "a~b"}, "without '~', but got 'a~b'"),
        ({"name": ""}, "well-formed model name"),
        ({"parents": ["bas"]}, r"a parent that was added before \(base, .*, but got 'bas'"),
        ({"loader": []}, "the data of model 'new' to have at least one sample, but it yields noth"),
        ({"evaluate": []}, "the evaluation data of model 'new' to have at least one sample"),
        ({"loader": batches()}, "can be iterated again, but got a generator"),
        ({"loader": [torch.zeros(2, 4)]}, r"batch 0 to be \(inputs, targets\)"),
        ({"loader": [(torch.zeros(2, 4), torch.zeros(2))]}, "class indices .* torch.float32"),
        ({"loader": loader([0, 3], 1)}, "class index 3 and there are 3 labels: cat, dog, owl"),
        ({"labels": ["cat", "dog", "owl", "yak"]}, "label for each of the 3 logits .* but got 4"),
        ({"labels": ["cat", "cat", "owl"]}, "distinct class names"),
        ({"loader": [(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))]}, "can take"),
    ],
)
def test_what_cannot_be_added_is_refused_in_one_line(
    network: Network, family: dict[str, nn.Module], changes: dict[str, Any], message: str
) -> None:
    graph = network.graph.models()
    values = {"name": "new", "model": copy.deepcopy(family["base"]), "loader": loader(ALL, 1)}
    with pytest.raises(DisinheritError, match=message) as error:
        network.add(**{**values, **changes})
    assert "\n" not in str(error.value)
    assert network.graph.models() == graph
    network.add("new", family["base"], loader(ALL, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"classes": "wolf"},
            r"a class that a model was trained on \(cat, dog, owl\), but got",
        ),
        ({"classes": "cat", "root": "child"}, r"directly \(base, stranger\), but got 'child'"),
        ({"classes": "cat", "root": "bas"}, "a root that was added before"),
        ({"classes": LABELS, "root": "base"}, "at least one class of 'base' to remain"),
        ({}, "either classes or samples to forget, but got none"),
        ({"classes": "cat", "samples": [0]}, "but got both"),
        ({"classes": "cat", "method": Method(scope="all")}, "scope 'head', .* but got 'all'"),
    ],
)
def test_what_cannot_be_forgotten_is_refused(
    network: Network, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(DisinheritError, match=message) as error:
        network.forget(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "a model name, but got 3"),
        ({"model": "base.pt"}, "torch.nn.Module as model 'new', but got 'base.pt'"),
        ({"model": {}}, "but got a dict"),
        ({"loader": None}, "a list of batches or a DataLoader, but got None"),
        ({"loader": blobs(ALL, 1)}, "yield batches, but got a TensorDataset. Give DataLoader"),
        ({"loader": [(torch.zeros(4), torch.tensor(0))]}, "rows? per sample|class indices"),
        ({"parents": 5}, "names of models as parents, but got 5"),
        ({"parents": [nn.Linear(2, 2)]}, "but one is a Linear"),
        ({"parents": {"base": "cat"}}, "class names of parent 'base' to its own, but got 'cat'"),
        ({"labels": "cat"}, "a list of class names as labels, but got 'cat'"),
        ({"labels": [0, 1, 2]}, "class names as labels, but one is 0"),
    ],
)
def test_what_is_no_argument_of_its_kind_is_refused_in_one_line(
    network: Network, family: dict[str, nn.Module], changes: dict[str, Any], message: str
) -> None:
    values = {"name": "new", "model": copy.deepcopy(family["base"]), "loader": loader(ALL, 1)}
    with pytest.raises(DisinheritError, match=message) as error:
        network.add(**{**values, **changes})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": 0}, "names of classes to forget, but got 0"),
        ({"classes": []}, "names of classes to forget, but got none"),
        ({"classes": "cat", "root": 3}, "names of roots, but got 3"),
        ({"classes": "cat", "root": []}, "names of roots, but got none"),
        ({"classes": "cat", "method": "head"}, "a Method as method, but got 'head'"),
        ({"samples": "cat", "root": "base"}, "indices, a data set or batches"),
        ({"samples": torch.zeros(180, dtype=torch.bool), "root": "base"}, "but got Tensor"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(
    network: Network, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(DisinheritError, match=message) as error:
        network.forget(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_cannot_compute_is_refused_in_one_line(device: str) -> None:
    with pytest.raises(DisinheritError, match=f"computes on here.*'{device}'") as error:
        Network(labels=LABELS, device=device)
    assert "\n" not in str(error.value)


def test_one_module_under_two_names_is_refused(network: Network) -> None:
    with pytest.raises(DisinheritError, match="module of its own .* but got that of 'base'"):
        network.add("twin", added(network, "base"), loader(ALL, 1), parents=["base"])


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    model = trained(blobs(ALL, 1))
    model.notes = (one for one in "abc")  # type: ignore[assignment]
    with pytest.raises(DisinheritError, match="copy.deepcopy can copy as model 'base'"):
        Network(labels=LABELS).add("base", model, loader(ALL, 1))


def test_an_error_halfway_leaves_all_as_it_was(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("base", "child", "grandchild")
    before = {name: weights_digest(added(network, name).state_dict()) for name in names}
    graph = network.graph.models()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(added(network, "child"), "load_state_dict", interrupted)
    monkeypatch.setattr(network._owner, "network", copied(network))
    with pytest.raises(KeyboardInterrupt):
        network.forget("cat", root="base")
    for name, digest in before.items():
        assert weights_digest(added(network, name).state_dict()) == digest
    assert network.graph.models() == graph
    monkeypatch.undo()
    assert network.forget("cat", root="base").complete


def copied(network: Network) -> Callable[[ModelRecord], nn.Module]:
    """How to make a network for a version without the module that fails."""
    return lambda record: copy.deepcopy(added(network, "stranger"))


def test_a_model_that_was_changed_since_is_refused(network: Network) -> None:
    with torch.no_grad():
        next(added(network, "child").parameters()).add_(1)
    with pytest.raises(DisinheritError, match="model 'child' as it was added"):
        network.forget("cat", root="base")
    network.forget("cat", root="stranger")
