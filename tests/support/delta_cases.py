"""Changes of a small root with a head, a normalisation layer and a kernel, and their packets."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from disinherit.common.deltas.packets import encode_delta
from disinherit.v1 import unlearning_pb2 as pb

LABELS = ("cat", "dog", "owl")
BEFORE, AFTER, ASKED = "0b" * 32, "1a" * 32, "2c" * 32
HEAD = ("head.weight", "head.bias", ("aux.weight",))


def values_of(seed: int = 0) -> dict[str, Tensor]:
    """Changes of either sign, by name."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "body.weight": (8, 4, 3, 3),
        "norm.running_var": (8,),
        "head.weight": (3, 5),
        "head.bias": (3,),
        "aux.weight": (3, 2),
    }
    return {
        name: torch.randn(shape, generator=generator).clamp(-2.5, 2.5)
        for name, shape in shapes.items()
    }


def make_delta(
    values: Mapping[str, Tensor] | None = None,
    *,
    labels: Sequence[str] = LABELS,
    head: tuple[str, str, Sequence[str]] = HEAD,
    samples: int = 7,
    encoding: Any = pb.DELTA_ENCODING_UNSPECIFIED,
    **delta: Any,
) -> pb.FisherPacket:
    """A packet of root `r`.

    An encoding that is not known is only written into it.
    """
    known = encoding in pb.DeltaEncoding.values()
    packet = encode_delta(
        values_of() if values is None else values,
        labels=labels,
        head_weight=head[0],
        head_bias=head[1],
        further_heads=head[2],
        source="r",
        samples=samples,
        delta=pb.Delta(
            before=BEFORE,
            after=AFTER,
            request_digest=ASKED,
            root_method="replay",
            encoding=encoding if known else pb.DELTA_ENCODING_UNSPECIFIED,
            **delta,
        ),
    )
    packet.delta.encoding = encoding
    return packet
