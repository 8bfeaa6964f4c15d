"""Image networks of torchvision and timm: DenseNet, VGG, ViT and all the others, untrained.

`torchvision/densenet121` is `torchvision.models.get_model("densenet121")`, and
`timm/vit_tiny_patch16_224` is `timm.create_model("vit_tiny_patch16_224")`, with the last linear
layer taken off.
"""

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.common.extras import import_problem
from disinherit.common.models.heads import find_head

PACKAGES = ("torchvision", "timm")


def is_vision(name: str) -> bool:
    """Whether a network's name is one of a vision package."""
    package, slash, model = name.partition("/")
    return package in PACKAGES and bool(slash) and bool(model)


def vision_features(name: str, input_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Return a network without its head, and the number of its features.

    Args:
        name: `torchvision/MODEL` or `timm/MODEL`.
        input_shape: of an image, `(channels, H, W)`.

    Raises:
        InputError: if the package is not installed, or has no such model for such images.
    """
    package, _, model = name.partition("/")
    try:
        network = _make(package, model, input_shape)
    except Exception as error:  # what the packages raise for an unknown name or size, too
        if (line := import_problem(error, f"network {name!r}")) is not None:
            raise InputError(line) from error
        reason = " ".join(str(error).split())
        raise InputError(
            f"Expected a classifier of {package} for images {list(input_shape)}, but got {name!r}: "
            f"{reason}."
        ) from error
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *input_shape[1:], generator=generator)
    head = find_head(network, images)
    linear = network.get_submodule(head.layers[0].module)
    if not head.exact or not isinstance(linear, nn.Linear):
        raise InputError(
            f"Expected a network with one linear layer as its head, but that of {name!r} is {head}."
        )
    network.set_submodule(head.layers[0].module, nn.Identity())
    return VisionFeatures(network), linear.in_features


class VisionFeatures(nn.Module):
    """A network's features, cut off below 0: the head relies on that when it is dampened.

    Args:
        network: maps images `[n, channels, H, W]` to `[n, d]`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.positive = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Map images `[n, channels, H, W]` to features `[n, d]`; grey ones to those of grey RGB."""
        three = images.expand(-1, 3, -1, -1)
        features: Tensor = self.positive(self.network(three))
        return features


def _make(package: str, model: str, input_shape: tuple[int, ...]) -> nn.Module:
    values: dict[str, Any] = {}
    if package == "torchvision":
        make = importlib.import_module("torchvision.models").get_model
        values["weights"] = None
        size: Any = input_shape[1]
    else:
        make = importlib.import_module("timm").create_model
        values["pretrained"] = False
        size = input_shape[1:]
    if model.startswith("vit_"):
        values["image_size" if package == "torchvision" else "img_size"] = size
    network: Any = make(model, **values)
    if not isinstance(network, nn.Module):
        raise TypeError(f"expected a module, but got {type(network).__name__}")
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]  # gradients need the inputs
    return network
