"""Loaders of models in one process: how often they are iterated, which may start workers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from disinherit import DataError, Method, Network
from tests.support.blobs import blobs, trained

ALL = [0, 1, 2]


class Counted:
    """Batches that count how often they are iterated; no data set of theirs can be seen."""

    def __init__(self, seed: int) -> None:
        self.loader = DataLoader(blobs(ALL, seed), 32)
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return iter(self.loader)


@pytest.mark.parametrize("scope", ["head", "all"])
def test_loaders_are_iterated_no_more_than_needed(scope: str) -> None:
    train, evaluate = Counted(1), Counted(99)
    network = Network(labels=["cat", "dog", "owl"], scope=scope)
    network.add("m", trained(blobs(ALL, 1)), train, evaluate=evaluate)
    assert train.passes == 3  # counted, seen to start again, and the Fisher information
    assert evaluate.passes == 2  # counted, and seen to start again
    network.forget("cat")
    assert train.passes == 3
    assert evaluate.passes == 4  # before and after


def test_a_data_loader_is_not_begun_to_see_that_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time starts its workers."""
    begun: list[DataLoader[Any]] = []
    start = DataLoader.__iter__

    def counted(loader: DataLoader[Any]) -> object:
        begun.append(loader)
        return start(loader)

    monkeypatch.setattr(DataLoader, "__iter__", counted)
    train, evaluate = DataLoader(blobs(ALL, 1), 32), DataLoader(blobs(ALL, 99), 32)
    network = Network(labels=["cat", "dog", "owl"])
    network.add("m", trained(blobs(ALL, 1)), train, evaluate=evaluate)
    assert (begun.count(train), begun.count(evaluate)) == (2, 1)


@pytest.mark.parametrize("scope", ["head", "all"])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("heirs", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mechanism": "fisher"},
        {"mechanism": "fisher", "reference": "all"},
        {"mechanism": "fisher", "repair_steps": 3},
    ],
)
def test_requests_iterate_loaders_no_more_often_than_the_documentation_says(
    scope: str, held_out: bool, heirs: int, options: dict[str, Any]
) -> None:
    """However many requests came before."""
    names = ["base", *(f"heir{index}" for index in range(heirs))]
    network = Network(labels=["cat", "dog", "owl"], scope=scope)
    method = Method(scope=scope, **options)
    base = trained(blobs(ALL, 1))
    loaders: dict[tuple[str, str], Counted] = {}
    for index, name in enumerate(names):
        given: dict[str, Any] = {"loader": Counted(1 + index)}
        if held_out:
            given |= {"evaluate": Counted(99), "tune": Counted(98)}
        model = trained(blobs(ALL, 1 + index), base) if index else base
        network.add(name, model, parents=names[:1] if index else (), **given)
        loaders |= {(name, argument): loader for argument, loader in given.items()}
    inputs, targets = blobs(ALL, 1).tensors
    rows = [[(inputs[row : row + 1], targets[row : row + 1])] for row in range(3)]
    requests: list[dict[str, Any]] = [{"samples": row} for row in rows]
    for request in (*requests, {"classes": "cat"}, {"classes": "dog"}):
        before = {key: loader.passes for key, loader in loaders.items()}
        network.forget(**request, root="base", method=method)
        for key, loader in loaders.items():
            most = 5
            if "samples" in request and key == ("base", "loader"):
                most = (10 if "mechanism" in options else 20) + 6 * len(names)
            elif "samples" in request and key == ("base", "tune"):
                most = 5 if "mechanism" in options else 20  # one look at what each method made
            assert loader.passes - before[key] <= most, key


class UsedUp(Counted):
    """Batches that are their own iterator."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        raise StopIteration


def test_that_a_loader_can_be_iterated_once_is_seen_without_iterating_it() -> None:
    used_up = UsedUp(1)
    with pytest.raises(DataError, match="iterated again, but got a UsedUp"):
        Network(labels=["cat", "dog", "owl"]).add("m", trained(blobs(ALL, 1)), used_up)
    assert used_up.passes == 0


class SecretlyUsedUp(Counted):
    """Batches whose one iterator is another object."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.batches = iter(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches


class Stream(IterableDataset[tuple[Tensor, ...]]):
    """A data set that is read once."""

    def __init__(self) -> None:
        data = blobs(ALL, 99)
        self.samples = iter([data[index] for index in range(len(data))])

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.samples


@pytest.mark.parametrize("make", [lambda: SecretlyUsedUp(99), lambda: DataLoader(Stream(), 32)])
@pytest.mark.parametrize("argument", ["loader", "evaluate", "tune"])
def test_a_loader_that_is_used_up_after_the_first_time_is_refused(
    make: Callable[[], Any], argument: str
) -> None:
    loaders = {"loader": DataLoader(blobs(ALL, 1), 32), argument: make()}
    network = Network(labels=["cat", "dog", "owl"])
    with pytest.raises(DataError, match=r"'m' .* yields nothing the second time") as error:
        network.add("m", trained(blobs(ALL, 1)), **loaders)
    assert "\n" not in str(error.value)
