"""What owners that lie, or answer nonsense, send in the place of the truth.

Each of these can be told from the truth: by a limit, by what is known of the model, or by what its
owner holds.  Nothing of it may stay once the owner is honest again.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import torch
from google.protobuf.message import Message
from safetensors.torch import load, save

from disinherit.v1 import unlearning_pb2 as pb

Lie = Callable[[Any], None]
"""Changes a reply."""

HUGE = 2 * 2**20
"""More characters than anything may have."""

_RUBBISH = "no\n\x1b[2J\x07 \u202eroom" * 200
_OTHER = "ab" * 32


def _first(reply: Any) -> Any:
    return reply.models[0]


def _put(message: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)


def _successor(**values: Any) -> Lie:
    return lambda reply: _put(_first(reply).successor, values)


def _result(**values: Any) -> Lie:
    return lambda reply: _put(_first(reply), values)


def _packet(**values: Any) -> Lie:
    def lie(reply: pb.FisherReply) -> None:
        for root in reply.roots:
            for packet in root.packets:
                _put(packet, values)

    return lie


def _delta(**values: Any) -> Lie:
    def lie(reply: pb.FisherReply) -> None:
        for root in reply.roots:
            for packet in root.packets:
                _put(packet.delta, values)

    return lie


def _tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Lie:
    """Return what changes the values of a packet, and its digest with them."""

    def lie(reply: pb.FisherReply) -> None:
        for root in reply.roots:
            for packet in root.packets:
                changed = {name: change(value) for name, value in load(packet.tensors).items()}
                packet.tensors = save(changed)
                packet.digest = hashlib.sha256(packet.tensors).hexdigest()

    return lie


def _withhold(reply: pb.FisherReply) -> None:
    for root in reply.roots:
        del root.packets[:]
        root.error = _RUBBISH


def _drop(reply: Any) -> None:
    del reply.models[:]


def _nothing_selected(reply: pb.UnlearnReply) -> None:
    """It says applied, and has selected nothing."""
    for result in reply.models:
        result.outcome = pb.OUTCOME_APPLIED
        del result.selections[:]


def _nothing_to_do(reply: pb.UnlearnReply) -> None:
    """It says that all was applied before, for a request of another content."""
    for result in reply.models:
        result.outcome = pb.OUTCOME_ALREADY_APPLIED
        result.request_digest = _OTHER


def _twice(reply: pb.UnlearnReply) -> None:
    """It names one version as the successor of all its models, and one more of another owner."""
    for result in reply.models[1:]:
        result.successor.CopyFrom(_first(reply).successor)
    reply.models.add(model_id="d", outcome=pb.OUTCOME_APPLIED)
    _first(reply).model_id = "d"


def _no_change(reply: pb.FisherReply) -> None:
    """It sends Fisher information for the change of a root."""
    for root in reply.roots:
        for packet in root.packets:
            packet.ClearField("delta")


_IN_ANY_PACKET: tuple[Lie, ...] = (
    _tensors(lambda values: torch.full_like(values, float("nan"))),
    _tensors(lambda values: torch.full_like(values, float("inf"))),
    _tensors(lambda values: values.to(torch.float8_e4m3fn)),
    _tensors(lambda values: values.to(torch.int64)),
    _tensors(lambda values: values[..., :1].contiguous()),
    _packet(digest="ab" * HUGE),
    _packet(digest=_OTHER),
    _packet(labels=["c" * HUGE]),
    _packet(sources=["d"]),
    _packet(classes=["another"]),
    _packet(samples=-5),
    _packet(clip_norm=float("nan")),
    _packet(head_weight="\x1b[2J" * 100),
    _packet(tensors=b"\xff" * 100),
    _withhold,
)

HOSTILE: Mapping[type[Message], Sequence[Lie]] = {
    pb.UnlearnReply: (
        _successor(digest="ab" * HUGE),
        _successor(digest="\x1b[2J" * 16),
        _successor(owner="o" * HUGE),
        _successor(id="../r3"),
        _successor(id="r" * HUGE),
        _successor(created_us=2**62),
        _successor(created_us=-5),
        _successor(status=77),
        _result(selections=[pb.Selection(parameter="2.weight", rows=[2**60])]),
        _result(selections=[pb.Selection(parameter="2.weight", rows=[2**62] * 4)]),
        _result(selections=[pb.Selection(parameter="p" * HUGE)]),
        _result(selections=[pb.Selection(parameter="2.weight", total=-1)]),
        _result(out_of_scope=["p" * 1000 + str(number) for number in range(6000)]),
        _result(out_of_scope=[str(number) for number in range(20_000)]),
        _result(retain_before=float("nan")),
        _result(scale=float("inf")),
        _result(alpha=float("-inf")),
        _result(outcome=99),
        _result(outcome=pb.OUTCOME_FAILED, error=_RUBBISH),
        _result(forget=pb.Recognition(measure="auc", after=float("nan"), samples=3)),
        _result(forget=pb.Recognition(measure="m" * HUGE, samples=3)),
        _drop,
    ),
    pb.FisherReply: (
        *_IN_ANY_PACKET,
        _tensors(lambda values: -values - 1),
        _tensors(lambda values: values * 1e9 + 1e9),
        _packet(encoding=2),
    ),
    pb.Delta: (
        *_IN_ANY_PACKET,
        _delta(before=_OTHER),
        _delta(after="\x1b[2J" * 16),
        _delta(request_digest=_OTHER),
        _delta(root_method="finetune"),
        _delta(root_method="m" * HUGE),
        _delta(encoding=77),
        _delta(rank=2**31 - 1),
        _no_change,
    ),
    pb.EvaluateReply: (
        _result(digest="ab" * HUGE),
        _result(digest="\x1b[2J"),
        _result(digest="", error=_RUBBISH),
        _result(model_id="d"),
        _result(model_id="m" * HUGE),
        _drop,
    ),
    pb.RegisterReply: (
        _result(digest="ab" * HUGE),
        _result(digest=_OTHER),
        _result(owner="owner-9"),
        _result(id="d\x1b[2J"),
        _result(id="../d"),
        _result(id="i" * HUGE),
        _result(labels=["c" * HUGE]),
        _result(labels=["c" + str(number) for number in range(200_000)]),
        _result(architecture="a" * HUGE),
        _result(created_us=-(2**62)),
        _result(status=77),
    ),
}
"""What cannot be: too large, no number, another's, or nothing at all.

Of the replies with packets, those with the change of a root are listed as `Delta`.
"""

LYING: Mapping[type[Message], Sequence[Lie]] = {
    pb.UnlearnReply: (
        _nothing_selected,
        _nothing_to_do,
        _twice,
        _successor(digest=_OTHER),
        _successor(id="d~first"),
        _result(forget=pb.Recognition(measure="accuracy", before=1, after=1, samples=500)),
    ),
    pb.EvaluateReply: (_result(digest="cd" * 32), _result(digest="cd" * 32, error="lost")),
}
"""What could be true of another model, or of the same one at another time."""


def changed(random: Random, lies: Mapping[type[Message], Sequence[Lie]], reply: Any) -> Any:
    """Return a copy of a reply with one lie in it; `None` if none can be told there.

    Args:
        random: chooses it.
        lies: kind of reply -> lies.
        reply: the truth.
    """
    parts = [packet for root in getattr(reply, "roots", ()) for packet in root.packets]
    of_change = any(packet.HasField("delta") for packet in parts)
    fitting = lies.get(pb.Delta if of_change else type(reply))
    if not fitting:
        return None
    if not parts and not getattr(reply, "models", ()):
        return None
    copy = type(reply)()
    copy.CopyFrom(reply)
    random.choice(fitting)(copy)
    return copy
