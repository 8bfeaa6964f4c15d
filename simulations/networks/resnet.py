"""ResNet-18 for small images (He et al. 2015): a 3 x 3 stem and no first pooling."""

from collections import OrderedDict

from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
"""Channels of the four stages, of two blocks each."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: ReLU(body(x) + shortcut(x)).

    The shortcut is the identity, or a 1 x 1 convolution where the shape changes.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        # A module of its own: hooks on a ReLU that is used twice would see both uses as one.
        self.activation = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[n, inputs, H, W]` to `[n, outputs, H / stride, W / stride]`, rounded up."""
        outputs: Tensor = self.activation(self.body(inputs) + self.shortcut(inputs))
        return outputs


def resnet18_features(channels: int) -> nn.Sequential:
    """Return ResNet-18 without its head: images `[n, channels, H, W]` to features `[n, 512]`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
        )
    )
    inputs = WIDTHS[0]
    for stage, outputs in enumerate(WIDTHS):
        layers[f"stage{stage + 1}"] = nn.Sequential(
            BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2),
            BasicBlock(outputs, outputs, stride=1),
        )
        inputs = outputs
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)
