import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.simulations.data.partitions import PARTITION_KINDS, partition


def test_three_kinds() -> None:
    assert set(PARTITION_KINDS) == {"iid", "dirichlet", "pathological"}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.sampled_from(["iid", "dirichlet"]),
    st.floats(1e-300, 1e6),
    st.integers(0, 2**40),
    st.data(),
)
def test_a_partition_is_a_partition(
    targets: list[int], kind: str, concentration: float, seed: int, data: st.DataObject
) -> None:
    clients = data.draw(st.integers(1, len(targets)))
    minimum = data.draw(st.integers(1, len(targets) // clients))

    def build() -> list[Tensor]:
        return partition(torch.tensor(targets), clients, kind, seed, concentration, minimum=minimum)

    parts = build()
    assert len(parts) == clients
    assert all(len(part) >= minimum and part.dtype == torch.int64 for part in parts)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(targets)))
    assert all(map(torch.equal, parts, build()))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**40), st.data())
def test_pathological_clients_hold_few_classes(
    classes: int, clients: int, seed: int, data: st.DataObject
) -> None:
    held = data.draw(st.integers(math.ceil(classes / clients), classes))
    # Not numbered from 0: a client's data need not have every class.
    targets = torch.arange(classes).repeat(clients) * 3 + 2

    parts = partition(targets, clients, "pathological", seed, classes_per_client=held)

    assert torch.cat(parts).sort().values.tolist() == list(range(len(targets)))
    assert [len(set(targets[part].tolist())) for part in parts] == [held] * clients
    again = partition(targets, clients, "pathological", seed, classes_per_client=held)
    assert all(map(torch.equal, parts, again))


def test_iid_shares_are_even() -> None:
    parts = partition(torch.zeros(11).long(), 3, "iid", seed=0)

    assert sorted(map(len, parts)) == [3, 4, 4]


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "pathological"])
def test_another_seed_gives_another_partition(kind: str) -> None:
    targets = torch.arange(4).repeat(25)

    one, other = (partition(targets, 4, kind, seed) for seed in (0, 1))

    assert not all(set(a.tolist()) == set(b.tolist()) for a, b in zip(one, other, strict=True))


def test_smaller_concentration_is_more_unequal() -> None:
    targets = torch.arange(10).repeat(100)

    def largest_class_share(concentration: float) -> float:
        parts = partition(targets, 5, "dirichlet", 0, concentration, minimum=20)
        shares = [targets[part].bincount().max().item() / len(part) for part in parts]
        return sum(shares) / len(shares)

    assert largest_class_share(1e6) < 0.11
    assert largest_class_share(0.1) > 0.25


def test_pathological_refuses_a_client_that_would_be_empty() -> None:
    with pytest.raises(DataError, match="a client with 0 from the pathological partition"):
        partition(torch.tensor([0, 0, 0, 1]), 4, "pathological", 0, classes_per_client=1)


@pytest.mark.parametrize("clients", [0, -1])
def test_less_than_one_client_is_refused(clients: int) -> None:
    with pytest.raises(DataError, match="at least 1 client"):
        partition(torch.zeros(5).long(), clients, "iid", seed=0)


@pytest.mark.parametrize(("clients", "minimum"), [(6, 1), (3, 2)])
def test_more_clients_than_samples_allow_is_refused(clients: int, minimum: int) -> None:
    with pytest.raises(DataError, match="5 samples in all"):
        partition(torch.zeros(5).long(), clients, "iid", seed=0, minimum=minimum)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan"), float("inf")])
def test_concentration_out_of_range_is_refused(concentration: float) -> None:
    with pytest.raises(DataError, match="concentration"):
        partition(torch.zeros(5).long(), 2, "dirichlet", 0, concentration)


@pytest.mark.parametrize("held", [0, 1, 5])
def test_classes_per_client_out_of_range_is_refused(held: int) -> None:
    with pytest.raises(DataError, match="from 2 to 4 classes per client"):
        partition(torch.arange(4).repeat(5), 2, "pathological", 0, classes_per_client=held)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match=r"'iid', 'dirichlet', 'pathological'.*'even'"):
        partition(torch.zeros(5).long(), 2, "even", seed=0)


def test_minimum_and_seed_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="minimum"):
        partition(torch.zeros(5).long(), 2, "iid", seed=0, minimum=0)
    with pytest.raises(DataError, match="seed"):
        partition(torch.zeros(5).long(), 2, "iid", seed=-1)
