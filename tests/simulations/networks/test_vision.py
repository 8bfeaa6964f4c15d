"""Networks of vision packages, with stand-ins for the packages, which are large and optional."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.simulations.networks.networks import NetworkSpec
from disinherit.simulations.networks.vision import is_vision


class Backbone(nn.Module):
    """What the packages have in common: features, in place here and there, and a last linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(6 * 36, 1000))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Put the packages' functions in place; what they were asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def make(name: str, **values: Any) -> nn.Module:
        asked.append((name, values))
        if name == "nonsense":
            raise ValueError("Unknown\nmodel nonsense")
        return Backbone()

    package = ModuleType("torchvision")
    models: Any = SimpleNamespace(get_model=make)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    timm: Any = SimpleNamespace(create_model=make)
    monkeypatch.setitem(sys.modules, "timm", timm)
    return asked


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["torchvision/vgg11", "timm/vgg11"])
def test_the_last_linear_layer_gives_way_to_our_head(
    name: str, channels: int, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    model = NetworkSpec(name, (channels, 8, 8), 7).build(seed=0).eval()
    assert asked[0][0] == "vgg11"
    images = torch.rand(4, channels, 8, 8)
    with torch.no_grad():
        features, logits = model.features(images), model(images)
    assert features.shape == (4, 6 * 36)
    assert (features >= 0).all()
    assert logits.shape == (4, 7)
    assert [name for name, m in model.named_modules() if isinstance(m, nn.Linear)] == ["head"]
    assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_the_same_seed_gives_the_same_network(asked: object) -> None:
    spec = NetworkSpec("torchvision/vgg11", (3, 8, 8), 7)
    one, same = spec.build(1).state_dict(), spec.build(1).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_transformers_are_told_the_size_of_the_images(
    asked: list[tuple[str, dict[str, Any]]],
) -> None:
    NetworkSpec("torchvision/vit_b_16", (3, 8, 8), 7).build(0)
    NetworkSpec("timm/vit_tiny_patch16_224", (3, 8, 8), 7).build(0)
    assert asked[0][1] == {"weights": None, "image_size": 8}
    assert asked[1][1] == {"pretrained": False, "img_size": (8, 8)}


def test_a_model_that_the_package_does_not_have_is_one_line(asked: object) -> None:
    with pytest.raises(InputError, match="'timm/nonsense': Unknown model nonsense"):
        NetworkSpec("timm/nonsense", (3, 8, 8), 7).build(0)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_without_the_package_it_is_said_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.models", None)
    with pytest.raises(InputError, match=r"pip install '\.\[vision\]'"):
        NetworkSpec(f"{package}/vgg11", (3, 8, 8), 7).build(0)


def test_names_of_vision_networks() -> None:
    assert is_vision("timm/vgg11")
    assert not any(map(is_vision, ("timm", "timm/", "keras/vgg11", "cnn", "/vgg11")))
