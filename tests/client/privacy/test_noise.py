"""Clipping and noise on released Fisher information, against naive gradients."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.dampening.summaries import register
from disinherit.client.privacy.noise import add_noise
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.common.errors import InputError
from disinherit.common.wire.packets import decode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, make_method
from tests.support.owner import LABELS, PointsOwner, make_network, make_points, samples_root

CLIP = 1e-4
CLIPPING = ReleasePolicy(clip_norm=CLIP)
NOISY = ReleasePolicy(clip_norm=CLIP, noise_multiplier=2.0)
CLASSES = ("cat", "dog")
BY_CLASS = pb.Root(model_id="m", classes=["cat"])


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", CLASSES, created_us=1)
        register(owner, pb.RegisterTask(scope="all"))
        yield owner


def released(
    owner: PointsOwner, root: pb.Root, policy: ReleasePolicy, scope: str = "head"
) -> pb.FisherPacket:
    task = pb.FisherTask(request_id="q", roots=[root], method=make_method(scope=scope).to_proto())
    (answer,) = forget_fishers(owner, task, policy).roots
    assert not answer.error, answer.error
    (packet,) = answer.packets
    return packet


def naive(owner: PointsOwner, classes: Sequence[str], clip: float) -> dict[str, Tensor]:
    """Mean of squared gradients of some classes, each parameter's clipped sample by sample."""
    network = make_network()
    network.load_state_dict(owner.store.weights("m"))
    inputs, targets = make_points(owner.name, "train", LABELS, classes)
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for i in range(len(inputs)):
        network.zero_grad()
        nn.functional.cross_entropy(network(inputs[i : i + 1]), targets[i : i + 1]).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            square = parameter.grad**2
            sums[name] += square * min(1.0, clip / square.norm().item())
    return {name: value / len(inputs) for name, value in sums.items()}


@pytest.mark.parametrize("scope", ["head", "all"])
def test_each_samples_square_is_clipped_parameter_by_parameter(
    owner: PointsOwner, scope: str
) -> None:
    unclipped = naive(owner, ["cat"], 1e9)
    for root, classes in ((BY_CLASS, ("cat",)), (pb.Root(model_id="m"), CLASSES)):
        packet = released(owner, root, CLIPPING, scope)
        expected = naive(owner, classes, CLIP)
        for name, value in decode_fisher(packet).items():
            torch.testing.assert_close(value, expected[name])
            assert value.norm() <= CLIP
        assert (packet.clip_norm, packet.noise_multiplier, packet.clamped) == (CLIP, 0, 0)
    assert any(unclipped[name].norm() > expected[name].norm() for name in HEAD)


def test_noise_has_its_deviation_and_results_are_never_negative() -> None:
    values = {"w": torch.full((200, 200), 10.0), "zero": torch.zeros(200, 200)}
    noisy, clamped = add_noise(values, 0.5, bytes(32), "m")
    assert abs(float(noisy["w"].mean()) - 10.0) < 0.02
    assert abs(float(noisy["w"].std()) - 0.5) < 0.02
    assert noisy["zero"].min() == 0
    assert abs(clamped - 20_000) < 1_000
    assert not torch.equal(noisy["w"] - 10, noisy["zero"])


def test_equal_questions_have_equal_noise_and_others_do_not(owner: PointsOwner) -> None:
    first = decode_fisher(released(owner, BY_CLASS, NOISY))
    again = decode_fisher(released(owner, BY_CLASS, NOISY))
    wider = decode_fisher(released(owner, BY_CLASS, NOISY, "all"))
    clean = decode_fisher(released(owner, BY_CLASS, CLIPPING))
    (owner.store.root / "samples.key").unlink()
    other = decode_fisher(released(owner, BY_CLASS, NOISY))
    for name in HEAD:
        assert torch.equal(first[name], again[name])
        torch.testing.assert_close(first[name], wider[name])
        assert not torch.equal(first[name], clean[name])
        assert not torch.equal(first[name], other[name])


def test_the_packet_reports_clipping_and_noise(owner: PointsOwner) -> None:
    root = samples_root("m", owner.store.root, [f"cat-{i}" for i in range(5)])
    packet = released(owner, root, NOISY)
    assert (packet.clip_norm, packet.noise_multiplier) == (CLIP, 2.0)
    zeros = sum(int((value == 0).sum()) for value in decode_fisher(packet).values())
    assert packet.clamped == zeros > 0


def test_without_data_a_clipping_owner_releases_nothing(
    owner: PointsOwner,
) -> None:
    owner.keeps_data = False
    task = pb.FisherTask(roots=[BY_CLASS], method=make_method().to_proto())
    (answer,) = forget_fishers(owner, task, CLIPPING).roots
    assert answer.withheld
    assert "but it is gone" in answer.error
    (answer,) = forget_fishers(owner, task).roots  # the registered summary is enough without
    assert not answer.error


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"clip_norm": -1.0}, "at least 0 as clip_norm"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"noise_multiplier": 1.0}, "clip_norm > 0 with noise_multiplier"),
    ],
)
def test_invalid_policies_are_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ReleasePolicy(**values)  # type: ignore[arg-type]
