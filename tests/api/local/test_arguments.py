"""Modules and labels that a network in one process cannot take are refused in one line."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from disinherit import DataError, GraphError, InputError, LabelError, Network, RequestError
from tests.support.blobs import blobs, trained

LABELS = ["cat", "dog", "owl"]


def classifier() -> nn.Module:
    return trained(blobs([0, 1, 2], 1))


@torch.inference_mode()
def of_inference_mode() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    model.register_buffer("seen", torch.zeros(1))
    return model


def with_a_buffer_of_inference_mode() -> nn.Module:
    model = classifier()
    with torch.inference_mode():
        model.register_buffer("seen", torch.zeros(1))
    return model


@pytest.mark.parametrize("value", [np.array(3), np.array("x"), torch.tensor(3)])
def test_arrays_without_dimensions_are_refused_as_collections(value: Any) -> None:
    with pytest.raises(LabelError, match="Expected a list of class names as labels, but got a"):
        Network(labels=value)
    network, data = Network(labels=LABELS), DataLoader(blobs([0, 1, 2], 1), 32)
    network.add("m", classifier(), data)
    with pytest.raises(GraphError, match="Expected names of models as parents, but got a"):
        network.add("n", classifier(), data, parents=value)
    for name in ("loader", "evaluate", "tune"):
        given = {"loader": data, name: value}
        with pytest.raises(DataError, match="to be a list of batches or a DataLoader, but got a"):
            network.add("n", classifier(), **given)
    with pytest.raises(RequestError, match="Expected names of classes to forget, but got a"):
        network.forget(value)
    with pytest.raises(RequestError, match="Expected names of roots, but got a"):
        network.forget("cat", root=value)
    with pytest.raises(DataError, match="Expected indices, a data set or batches as samples"):
        network.forget(samples=value, root="m")


@pytest.mark.parametrize("value", [["a"], {}, None])
def test_names_that_are_no_text_are_refused_in_one_line(value: Any) -> None:
    network, data = Network(labels=LABELS), DataLoader(blobs([0, 1, 2], 1), 32)
    with pytest.raises(GraphError, match="Expected names of models as parents, but one is"):
        network.add("n", classifier(), data, parents=[value])
    network.add("m", classifier(), data)
    with pytest.raises(RequestError, match="Expected names of classes to forget, but one is"):
        network.forget([value])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.DataParallel(classifier()),
            "model is a DataParallel. Give model.module in its place",
        ),
        (
            lambda: nn.Sequential(nn.DataParallel(nn.Linear(4, 8)), nn.Linear(8, 3)),
            "model.0 is a DataParallel. Give model.0.module in its place",
        ),
        (of_inference_mode, "its 0.weight was made in inference mode. Give copy.deepcopy"),
        (with_a_buffer_of_inference_mode, "its seen was made in inference mode"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "its 0.weight has no values yet"),
        (lambda: classifier().to("meta"), "its 0.weight has no values yet"),
    ],
)
def test_a_module_that_cannot_be_used_as_it_is_is_refused_in_one_line(
    make: Callable[[], nn.Module], message: str
) -> None:
    network = Network(labels=LABELS)
    with pytest.raises(InputError, match=message) as error:
        network.add("m", make(), DataLoader(blobs([0, 1, 2], 1), 32))
    assert "\n" not in str(error.value)


def test_so_is_one_that_is_spread_over_processes(tmp_path: Path) -> None:
    file = f"file://{tmp_path / 'processes'}"
    torch.distributed.init_process_group("gloo", init_method=file, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(classifier())
        with pytest.raises(InputError, match=r"DistributedDataParallel\. Give model\.module"):
            Network(labels=LABELS).add("m", model, DataLoader(blobs([0, 1, 2], 1), 32))
    finally:
        torch.distributed.destroy_process_group()


def test_what_the_errors_advise_helps() -> None:
    for model in (nn.DataParallel(classifier()).module, copy.deepcopy(of_inference_mode())):
        network = Network(labels=LABELS)
        network.add("m", model, DataLoader(blobs([0, 1, 2], 1), 32))
        assert network.forget("cat").complete


def test_labels_that_repeat_are_refused_at_once() -> None:
    with pytest.raises(
        LabelError, match="distinct class names as labels, but got 'a' more than once"
    ):
        Network(labels=["a", "b", "a"])


def test_it_does_not_matter_in_which_mode_the_caller_is() -> None:
    model = classifier()
    with torch.inference_mode():
        network = Network(labels=LABELS)
        network.add("m", model, DataLoader(blobs([0, 1, 2], 1), 32))
        assert network.forget("cat").complete
    assert not next(model.parameters()).is_inference()
