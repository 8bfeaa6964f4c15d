"""Samples of loaders of apps: order, ids, batches that are dicts, what is refused; functions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

from tests.support import flower_app  # noqa: F401  (first of all that imports Flower)

from flwr.clientapp import ClientApp  # isort: skip

from disinherit.common.errors import DataError, InputError, LabelError  # isort: skip
from disinherit.flower import owner_app  # isort: skip
from disinherit.flower.functions import call  # isort: skip
from disinherit.flower.app_samples import AppSamples, split_loaders  # isort: skip

INPUTS = torch.arange(10.0)[:, None]
TARGETS = torch.arange(10) % 3
DATA = TensorDataset(INPUTS, TARGETS)


class Rows(Dataset[dict[str, Any]]):
    """Rows as Hugging Face's data sets have them."""

    def __init__(self, **more: Any) -> None:
        self.more = more

    def __len__(self) -> int:
        return len(INPUTS)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = {"img": INPUTS[place], "label": TARGETS[place]}
        return row | {name: values[place] for name, values in self.more.items()}


def values(samples: AppSamples, places: list[int] | None = None) -> list[float]:
    batches = samples.of_all() if places is None else samples.some(places)
    return [one for inputs, _ in batches for one in torch.as_tensor(inputs).flatten().tolist()]


LOADERS = {
    "shuffled": DataLoader(DATA, 4, shuffle=True),
    "dicts": DataLoader(Rows(), 4, shuffle=True),
    "list": list(DataLoader(DATA, 4)),
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_positions_are_ids_in_any_order_of_drawing(loader: Any) -> None:
    samples = AppSamples(loader, "data")
    assert samples.ids == tuple(map(str, range(10)))
    assert samples.targets == tuple(TARGETS.tolist())
    assert values(samples) == values(samples) == list(range(10))
    assert values(samples, [7, 2]) == [2, 7]
    assert samples.digest == AppSamples(LOADERS["list"], "data").digest


def test_data_that_say_more_have_their_own_ids() -> None:
    named = [f"patient-{place}" for place in range(10)]
    assert AppSamples(DataLoader(Rows(id=named), 4), "data").ids == tuple(named)
    numbered = torch.arange(10) + 100
    assert AppSamples(DataLoader(Rows(sample_id=numbered), 4), "data").ids[0] == "100"
    data = TensorDataset(INPUTS, TARGETS)
    vars(data)["ids"] = named
    assert AppSamples(DataLoader(data, 4, shuffle=True), "data").ids == tuple(named)
    with pytest.raises(DataError, match="a different id of each sample"):
        AppSamples(DataLoader(Rows(id=["same"] * 10), 4), "data").ids  # noqa: B018


def test_only_what_a_loader_draws_counts() -> None:
    samples = AppSamples(DataLoader(DATA, 2, sampler=SubsetRandomSampler([5, 1])), "data")
    assert samples.ids == ("1", "5")
    assert values(samples) == [1, 5]


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        yield from INPUTS


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (DataLoader(Stream()), "that streams"),
        (iter([]), "that streams"),
        (3, "to be a DataLoader or a list of batches, but got int"),
        ({"train": []}, "but got dict"),
    ],
)
def test_what_has_no_positions_is_refused(loader: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        AppSamples(loader, "data of node-0")


def test_batches_whose_parts_cannot_be_told_are_refused() -> None:
    loader = DataLoader(Rows(mask=INPUTS), 4)
    with pytest.raises(DataError, match="got img, label, mask. Give batch=lambda"):
        AppSamples(loader, "data").targets  # noqa: B018
    samples = AppSamples(loader, "data", lambda batch: (batch["img"], batch["label"]))  # type: ignore[index]
    assert values(samples) == list(range(10))
    with pytest.raises(DataError, match="Expected class indices"):
        AppSamples([(INPUTS, INPUTS)], "data").targets  # noqa: B018


def test_loading_functions_give_one_loader_or_two() -> None:
    loader = DataLoader(DATA, 4)
    assert split_loaders(loader, "data", None)[1] is None
    _, held_out = split_loaders((loader, loader), "data", None)
    assert held_out is not None
    with pytest.raises(DataError, match="but got 3 things"):
        split_loaders((loader, loader, loader), "data", None)


def test_functions_take_what_the_configuration_says() -> None:
    config = {"partition-id": 3, "batch-size": 8, "other": 1}

    def load(partition_id: int, /, batch_size: int, seed: int = 5, **_: int) -> tuple[int, ...]:
        return partition_id, batch_size, seed

    assert call(load, "the data", config) == (3, 8, 5)
    assert call(lambda: 7, "the data", config) == 7
    with pytest.raises(InputError, match=r"\(batch-size, other, partition-id\), but it takes 'x'"):
        call(lambda x: x, "the data", config)


def load_data() -> list[Any]:
    return []


def test_wrong_arguments_of_owner_app_are_refused() -> None:
    good: dict[str, Any] = {"model": lambda: nn.Linear(1, 3), "data": load_data}
    assert (
        owner_app(ClientApp(), **good, server_data="load_data").functions.server_data is load_data
    )
    for wrong, reason in (
        ({"model": None}, "Expected a function as model"),
        ({"data": []}, "Expected a function as data of an owner app, but got list"),
        ({"server_data": "load_dota"}, "there is no 'load_dota'"),
        ({"batch": 3}, "Expected a function as batch"),
    ):
        with pytest.raises(InputError, match=reason):
            owner_app(ClientApp(), **(good | wrong))
    wrong_labels: list[Any] = [(), "cat", ("cat", "cat"), ("cat", 3)]
    for labels in wrong_labels:
        with pytest.raises(LabelError, match="two or more distinct class names"):
            owner_app(ClientApp(), **good, labels=labels)
    with pytest.raises(InputError, match="to be given a ClientApp of Flower, but got a function"):
        owner_app(load_data, **good)  # type: ignore[arg-type]
