"""The change that an owner sends is of the root, weights, samples and request it was asked for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from disinherit.common.deltas.origin import most_values, received_delta
from disinherit.common.deltas.packets import MOST_VALUES
from disinherit.common.errors import FisherError
from disinherit.common.graph.records import FisherScale, ModelRecord
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.delta_cases import ASKED, BEFORE, LABELS, make_delta

RECORD = ModelRecord("r", "acme", "mlp", LABELS, BEFORE, 1)
SAMPLES = [f"{n:064x}" for n in range(7)]
ROOT = pb.Root(model_id="r", samples=SAMPLES)


def sized(values: int) -> ModelRecord:
    return replace(RECORD, fisher_scale=FisherScale("all", (1.0,) * 3, values=values))


@pytest.mark.parametrize("encoding", [0, 1, 2])
def test_what_was_asked_for_is_taken(encoding: Any) -> None:
    packet = make_delta(encoding=encoding)
    found = received_delta(packet, ROOT, sized(500), ASKED)
    assert found.source == "r"
    assert found.values.keys() == {
        "body.weight",
        "norm.running_var",
        "head.weight",
        "head.bias",
        "aux.weight",
    }


def edited(change: Callable[[pb.FisherPacket], Any]) -> pb.FisherPacket:
    packet = make_delta()
    change(packet)
    return packet


@pytest.mark.parametrize(
    ("packet", "named"),
    [
        (edited(lambda p: p.sources.__setitem__(0, "s")), r"change of r .* that of \['s'\]"),
        (edited(lambda p: p.sources.append("s")), r"that of \['r', 's'\]"),
        (edited(lambda p: p.labels.reverse()), r"classes \['owl', 'dog', 'cat'\]"),
        (edited(lambda p: setattr(p.delta, "before", "3" * 64)), "from weights .* '333"),
        (edited(lambda p: setattr(p.delta, "before", "")), "from weights .* with ''"),
        (edited(lambda p: setattr(p.delta, "request_digest", "3" * 64)), "for a request .* '333"),
        (edited(lambda p: setattr(p.delta, "after", BEFORE)), "another digest than before"),
        (edited(lambda p: setattr(p.delta, "after", "")), "another digest than before"),
        (edited(lambda p: setattr(p, "samples", 6)), "without 7 samples .* without 6"),
        (edited(lambda p: setattr(p, "samples", 8)), "without 7 samples .* without 8"),
        (edited(lambda p: setattr(p, "samples", -1)), "without 7 samples .* without -1"),
        (edited(lambda p: p.ClearField("delta")), "from weights"),
        (edited(lambda p: setattr(p, "digest", "0" * 64)), "Expected digest"),
    ],
)
def test_anything_else_is_refused(packet: pb.FisherPacket, named: str) -> None:
    with pytest.raises(FisherError, match=named) as refused:
        received_delta(packet, ROOT, RECORD, ASKED)
    assert "\n" not in str(refused.value)


def test_unknown_samples_may_be_fewer_if_the_request_goes_on_without_them() -> None:
    lenient = pb.Root(model_id="r", samples=SAMPLES, ignore_unknown=True)
    assert received_delta(make_delta(samples=3), lenient, RECORD, ASKED).samples == 3
    for count in (0, 8):
        with pytest.raises(FisherError, match="without 7 samples"):
            received_delta(make_delta(samples=count), lenient, RECORD, ASKED)
    client = pb.Root(model_id="r")
    assert received_delta(make_delta(samples=300), client, RECORD, ASKED).samples == 300
    with pytest.raises(FisherError, match="a sample at least"):
        received_delta(make_delta(samples=0), client, RECORD, ASKED)


def test_a_root_that_did_not_change_has_no_change() -> None:
    packet = make_delta({})
    packet.delta.after = BEFORE
    assert received_delta(packet, ROOT, RECORD, ASKED).values == {}


def test_a_change_is_no_larger_than_the_model_that_was_registered() -> None:
    assert most_values(RECORD) == MOST_VALUES
    assert most_values(sized(10**6)) == 2 * 10**6 + 2**20
    assert most_values(sized(2**40)) == MOST_VALUES
    bomb = make_delta({"w": torch.ones(2000, 2000)}, rank=1)
    assert len(bomb.tensors) < 20_000
    assert received_delta(bomb, ROOT, RECORD, ASKED).values["w"].numel() == 4_000_000
    with pytest.raises(FisherError, match="at most 1,049,576 values, .* decodes into 4,000,000"):
        received_delta(bomb, ROOT, sized(500), ASKED)
