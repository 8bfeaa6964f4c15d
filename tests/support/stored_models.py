"""A model, its successor and its Fisher summaries, as the tests of the model store keep them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disinherit.client.store.ledger import Commit
from disinherit.client.store.store import ModelStore
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.tensors.checkpoints import weights_digest

LABELS = ("cat", "dog", "owl")


def make_weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(3, 4, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }


def make_record(model_id: str = "m", seed: int = 0, **changes: Any) -> ModelRecord:
    record = ModelRecord(
        id=model_id,
        owner="anna",
        architecture="net",
        labels=LABELS,
        digest=weights_digest(make_weights(seed)),
        created_us=1,
        provenance=Provenance("pets", {"cat": 2, "dog": 3}, "ab" * 32),
    )
    return replace(record, **changes)


def make_fishers(value: float = 1.0) -> ClassFishers:
    return ClassFishers(
        {"head.weight": torch.full((3, 3, 4), value), "head.bias": torch.full((3, 3), value)},
        torch.tensor([2, 3, 0]),
    )


def make_application(**changes: Any) -> Commit:
    application = Commit(
        request_id="forget-cats",
        model_id="m",
        expected_digest=weights_digest(make_weights(0)),
        successor=make_record("m~1", seed=1, created_us=2, provenance=None),
        weights=make_weights(1),
        result=b"\x00reply",
        fishers=make_fishers(2.0),
        fisher_scope="head",
    )
    return replace(application, **changes)


def assert_same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def assert_same_fishers(left: tuple[ClassFishers, str] | None, right: ClassFishers) -> None:
    assert left is not None
    assert_same_tensors(left[0].sums, right.sums)
    assert torch.equal(left[0].counts, right.counts)


def object_names(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").iterdir()}


def state_of(store: ModelStore) -> object:
    """The whole readable content."""
    return [
        (record, weights_digest(store.weights(record.id)), store.fishers(record.id) is None)
        for record in store.records()
    ]
