"""Data that a model was trained on, or cannot take, is refused as held-out data."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from disinherit import DataError, Network
from tests.support.blobs import blobs, trained

ALL = [0, 1, 2]
DATA = blobs(ALL, 1)
OTHER = blobs(ALL, 2)
FIRST, SECOND = range(90), range(90, 180)
BATCHES = [*DataLoader(DATA, 30)]

Loader = Iterable[object]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(DATA[index] for index in range(len(DATA)))


class Keyed(Dataset[Any]):
    """A data set of samples with names."""

    def __getitem__(self, name: Any) -> Any:
        return DATA[int(name)]


STREAM, KEYED = Stream(), Keyed()


def of(data: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(data, 30, **options)


def part(indices: range) -> Dataset[Any]:
    return Subset(DATA, indices)


def add(train: Loader, evaluate: Loader | None, tune: Loader | None = None) -> None:
    network = Network(labels=["cat", "dog", "owl"])
    network.add("m", trained(DATA), train, evaluate=evaluate, tune=tune)


TWICE = {
    "its data set": (of(DATA, shuffle=True), of(DATA)),
    "tensors of its data set": (of(DATA), of(TensorDataset(*DATA.tensors))),
    "a part of its data set": (of(DATA), of(part(FIRST))),
    "a part that overlaps": (of(part(range(91))), of(part(SECOND))),
    "a part of a part": (of(Subset(part(SECOND), range(10))), of(part(range(95, 99)))),
    "a set with a part of its own": (of(part(FIRST)), of(ConcatDataset([OTHER, DATA]))),
    "the other half of a set with it": (
        of(Subset(ConcatDataset([OTHER, DATA]), range(180, 190))),
        of(part(FIRST)),
    ),
    "what a sampler draws": (of(DATA), of(DATA, sampler=SubsetRandomSampler([*SECOND]))),
    "what it may draw": (of(DATA, sampler=WeightedRandomSampler([1.0] * 180, 180)), of(DATA)),
    "what it drew with others": (of(DATA, sampler=RandomSampler(DATA, num_samples=30)), of(DATA)),
    "batches of a sampler": (
        DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(FIRST), 30, False)),
        of(part(FIRST)),
    ),
    "a stream": (of(STREAM), of(STREAM)),
    "a list of some of its batches": (BATCHES, BATCHES[:2]),
    "a list of the same tensors": ([tuple(DATA.tensors)], [tuple(DATA.tensors)]),
    "batches of its tensors": (of(DATA), [tuple(DATA.tensors)]),
}

APART = {
    "parts of one data set": (of(part(FIRST)), of(part(SECOND))),
    "a random split": tuple(map(of, torch.utils.data.random_split(DATA, [0.5, 0.5]))),
    "samplers of one data set": (
        of(DATA, sampler=SubsetRandomSampler([*FIRST])),
        of(DATA, sampler=SubsetRandomSampler([*SECOND])),
    ),
    "batches of a sampler": (
        DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(FIRST), 30, False)),
        of(part(SECOND)),
    ),
    "folds": (
        of(ConcatDataset([part(range(60)), part(range(60, 120))])),
        of(part(range(120, 180))),
    ),
    "some that are not known": (
        of(DATA, sampler=WeightedRandomSampler([1.0] * 90 + [0.0] * 90, 180)),
        of(part(SECOND)),
    ),
    "keys": (of(Subset(KEYED, ["0", "1"])), of(Subset(KEYED, ["2", "4"]))),  # type: ignore[list-item]
    "batches": (BATCHES[:3], BATCHES[3:]),
}


@pytest.mark.parametrize("loaders", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("turned", [False, True])
def test_training_data_is_not_held_out(loaders: tuple[Loader, Loader], turned: bool) -> None:
    train, evaluate = reversed(loaders) if turned else loaders
    with pytest.raises(
        DataError,
        match="the evaluation data of model 'm' to be held out, but got a loader of the same "
        "samples as the data of model 'm'",
    ) as error:
        add(train, evaluate)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loaders", APART.values(), ids=APART)
def test_other_samples_are(loaders: tuple[Loader, Loader]) -> None:
    add(*loaders)


def test_the_same_loader_of_any_kind_is_not() -> None:
    class Own:
        def __iter__(self) -> Iterator[Any]:
            return iter(BATCHES)

    for loader in (of(DATA), BATCHES, Own()):
        for held_out in ((loader, None), (None, loader)):
            with pytest.raises(DataError, match="got the same loader as the data of model 'm'"):
                add(loader, *held_out)
    held = of(OTHER)
    with pytest.raises(DataError, match="tuning data .* the same loader as the evaluation data"):
        add(of(DATA), held, held)


def test_nor_is_what_an_ancestor_was_trained_on() -> None:
    network = Network(labels=["cat", "dog", "owl"])
    network.add("base", trained(DATA), of(DATA))
    network.add("child", trained(OTHER), of(OTHER), parents=["base"])
    third = blobs(ALL, 3)
    with pytest.raises(DataError, match="'heir' to be held out, .* as the data of model 'base'"):
        network.add("heir", trained(third), of(third), parents=["child"], evaluate=of(DATA))
    network.add("stranger", trained(third), of(third), evaluate=of(DATA))


class Attentive(nn.Module):
    """A classifier that asserts the form of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        assert inputs.shape[1] == 4, "four\nnumbers"
        logits: Tensor = self.head(inputs)
        return logits


TARGETS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    "make", [lambda: trained(DATA), Attentive], ids=["torch refuses", "the model asserts"]
)
@pytest.mark.parametrize(
    ("inputs", "form"),
    [
        (torch.zeros(2, 5), r"torch.float32 \[n, 5\]"),
        (torch.zeros(2, 4, dtype=torch.float64), r"torch.float64 \[n, 4\]"),
        (torch.zeros(2, 4, 4), r"torch.float32 \[n, 4, 4\]"),
        ((torch.zeros(2, 4), torch.zeros(2)), r"torch.float32 \[n, 4\] and torch.float32 \[n\]"),
    ],
)
@pytest.mark.parametrize("argument", ["evaluate", "tune"])
def test_held_out_data_of_another_form_is_refused_when_it_is_added(
    make: Callable[[], nn.Module], inputs: Any, form: str, argument: str
) -> None:
    network = Network(labels=["cat", "dog", "owl"])
    what = {"evaluate": "evaluation", "tune": "tuning"}[argument]
    later: Any = [*DataLoader(OTHER, 60), (inputs, TARGETS)]
    with pytest.raises(
        DataError,
        match=rf"the {what} data of model 'm' .* torch.float32 \[n, 4\], but got {form}\. Prepare",
    ) as error:
        network.add("m", make(), of(DATA), **{argument: later})
    assert "\n" not in str(error.value)
    assert len(network.graph) == 0
