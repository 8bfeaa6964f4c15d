"""What a session shows of public values fits on a line, however large they are."""

from typing import Any

import pytest
import torch
from torch import nn

import disinherit
from disinherit.v1 import unlearning_pb2 as pb

CLASSES = tuple(map(str, range(100)))
MODEL = nn.Linear(64, len(CLASSES))
BATCH = torch.randn(200, 64), torch.arange(200) % len(CLASSES)


def class_fishers() -> disinherit.ClassFishers:
    return disinherit.fisher_diagonal(MODEL, [BATCH], per_class=True)


def commit() -> disinherit.Commit:
    record = disinherit.describe_model("m~q", MODEL, owner="anna", labels=CLASSES)
    weights = dict(MODEL.state_dict())
    return disinherit.Commit("q", "m", "", record, weights, bytes(10_000), class_fishers())


def digests() -> disinherit.SampleDigests:
    return disinherit.SampleDigests(32 * "0", tuple(f"{number:064x}" for number in range(1000)))


def dampened() -> disinherit.Dampened:
    values = {name: value.detach() for name, value in MODEL.named_parameters()}
    fisher = class_fishers().total().values
    return disinherit.unlearn_parameters(values, fisher, fisher, gauge=0, alpha=0.5)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (class_fishers(), "ClassFishers(100 classes, 2 parameters, 200 samples)"),
        (class_fishers().total(), "Fisher(2 parameters, 200 samples)"),
        (dampened(), "Dampened(6500 of 6500 values selected)"),
        (digests(), "SampleDigests(1000 samples, salt '00000000'...)"),
        (disinherit.InheritanceGraph(), "InheritanceGraph(0 models, 0 edges)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_large_value_is_shown_by_its_size(value: Any, shown: str) -> None:
    assert repr(value) == shown


def test_what_carries_weights_or_packets_shows_none() -> None:
    ask = disinherit.Ask("anna", "query.fisher", pb.FisherTask(), {"d": bytes(10_000)})
    for value in (ask, disinherit.Answer(ask), commit().entry):
        assert len(repr(value)) < 400  # of the 20,000 characters of its bytes
    assert "tensor(" not in repr(commit())
