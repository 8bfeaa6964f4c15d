"""Networks for simulations: non-negative features and a linear head, rebuilt from a small spec."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.common.models.heads import Head, HeadLayer
from disinherit.common.text import did_you_mean
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.networks import efficientnet
from disinherit.simulations.networks.resnet import WIDTHS, resnet18_features
from disinherit.simulations.networks.text_networks import (
    PADDING,
    RecurrentFeatures,
    TransformerFeatures,
    masked_mean,
)
from disinherit.simulations.networks.vision import is_vision, vision_features

_IMAGE_NETWORKS = ("cnn", "mlp", "resnet18")
_TEXT_NETWORKS = ("text", "lstm", "transformer")
_FEATURES = 64
_EMBEDDING = 32
_WIDENED = re.compile(r"(cnn|mlp)-([2-9]|[1-5][0-9]|6[0-4])")
"""Names of the two plain networks with 2 to 64 times as many channels and features."""


class Classifier(nn.Module):
    """Features, then a linear head: `head(features(x))`.

    Args:
        features: maps inputs to features `[n, d]`, all >= 0, on which dampening the head relies.
        width: `d`.
        classes: `C`.
    """

    def __init__(self, features: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `[n, C]`."""
        logits: Tensor = self.head(self.features(inputs))
        return logits

    def known_head(self) -> Head:
        """Return what `find_head` would find, as the network is made so."""
        return Head((HeadLayer("head", "head.weight", "head.bias"),))


class MeanEmbedding(nn.Module):
    """The mean of the embeddings of a text's tokens; padding (id 0) does not count.

    Args:
        vocabulary: number of ids.
        width: of an embedding, `d`.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `[n, L]` to means `[n, d]`; a text of nothing but padding to zeros."""
        return masked_mean(self.embedding(ids), ids)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """All that is needed to build a network again elsewhere.

    Attributes:
        name: `cnn`, `mlp`, `cnn-N` or `mlp-N` (N times as wide, 2 to 64), `resnet18`,
            `torchvision/...`, `timm/...` or `efficientnet-lite0`, the one that does not start at
            random, for images; `text` (a mean of embeddings), `lstm` or `transformer` for token
            ids.
        input_shape: of one sample: `(channels, H, W)` or `(L,)`.
        classes: number of rows of the head, `C`.
        vocabulary: number of token ids for texts, 0 for images.

    Raises:
        InputError: if the name is unknown or does not fit the other values.

    Example:
        >>> spec = NetworkSpec("cnn", (1, 28, 28), 10)
        >>> NetworkSpec.from_dict(spec.to_dict()) == spec
        True
        >>> spec.build(seed=0).head
        Linear(in_features=64, out_features=10, bias=True)
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    vocabulary: int = 0

    def __post_init__(self) -> None:
        check_network(self.name)
        dimensions = 1 if self.name in _TEXT_NETWORKS else 3
        if len(self.input_shape) != dimensions or min(self.input_shape) < 1:
            form = "(channels, H, W)" if dimensions == 3 else "(L,)"
            raise InputError(
                f"Expected an input shape {form} for network {self.name!r}, but got "
                f"{self.input_shape}."
            )
        if _plain(self.name)[0] == "cnn" and min(self.input_shape[1:]) < 4:
            raise InputError(
                f"Expected images of at least 4 x 4 pixels for network {self.name!r}, but got "
                f"{self.input_shape}."
            )
        if self.name == efficientnet.NAME and self.input_shape[0] not in (1, 3):
            raise InputError(
                f"Expected images of 1 or 3 channels for network {self.name!r}, but got "
                f"{self.input_shape}."
            )
        if self.classes < 1:
            raise InputError(f"Expected at least 1 class, but got {self.classes}.")
        if dimensions == 1 and self.vocabulary < 2:
            raise InputError(
                f"Expected a vocabulary of at least 2 ids for network {self.name!r}, but got "
                f"{self.vocabulary}."
            )
        if dimensions == 3 and self.vocabulary != 0:
            raise InputError(
                f"Expected no vocabulary for network {self.name!r}, but got {self.vocabulary}."
            )

    @classmethod
    def for_dataset(cls, name: str, dataset: Dataset, classes: int | None = None) -> Self:
        """Return the spec of a network for a data set, with a row per class unless given."""
        count = len(dataset.classes) if classes is None else classes
        return cls(name, dataset.sample_shape, count, dataset.vocabulary)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that `to_dict` wrote.

        Raises:
            InputError: if a value is missing, surplus, of the wrong type or out of range.
        """
        types = {"name": str, "input_shape": list, "classes": int, "vocabulary": int}
        numbers = values.get("input_shape")
        if {key: type(value) for key, value in values.items()} != types or not all(
            type(number) is int for number in numbers or ()
        ):
            raise InputError(
                "Expected a network spec with name (text), input_shape (list of whole numbers), "
                f"classes and vocabulary (whole numbers), but got {dict(values)}."
            )
        return cls(**{**values, "input_shape": tuple(values["input_shape"])})

    def to_dict(self) -> dict[str, str | int | list[int]]:
        """Return the spec as values that JSON has."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "vocabulary": self.vocabulary,
        }

    def build(self, seed: int) -> Classifier:
        """Return the network on the CPU, initialised by `seed`; global random state is untouched.

        Raises:
            InputError: if the seed is not in [0, 2^63).
        """
        if not 0 <= seed < 2**63:
            raise InputError(f"Expected a seed from 0 to 2^63 - 1, but got {seed}.")
        # Only the CPU's generator is seeded: torch.manual_seed would reseed every device's.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            features, width = self._features()
            return Classifier(features, width, self.classes)

    def _features(self) -> tuple[nn.Module, int]:
        plain, times = _plain(self.name)
        if plain == "cnn":
            channels, height, width = self.input_shape
            return _cnn_features(channels, height, width, times), times * _FEATURES
        if plain == "mlp":
            return _mlp_features(math.prod(self.input_shape), times), times * _FEATURES
        if self.name == "resnet18":
            return resnet18_features(self.input_shape[0]), WIDTHS[-1]
        if self.name == "lstm":
            return RecurrentFeatures(self.vocabulary, _EMBEDDING, _FEATURES), _FEATURES
        if self.name == "transformer":
            return TransformerFeatures(self.vocabulary, self.input_shape[0], _FEATURES), _FEATURES
        if self.name == efficientnet.NAME:
            return efficientnet.PretrainedFeatures(), efficientnet.WIDTH
        if is_vision(self.name):
            return vision_features(self.name, self.input_shape)
        return _text_features(self.vocabulary), _FEATURES


def known_networks() -> list[str]:
    """Return the names of the embedded networks."""
    return [*_IMAGE_NETWORKS, *_TEXT_NETWORKS]


def check_network(name: str) -> None:
    """Check that a network has a name that is known.

    Raises:
        InputError: if it is neither embedded nor of a package.
    """
    known = (*known_networks(), efficientnet.NAME)
    if name not in known and not _WIDENED.fullmatch(name) and not is_vision(name):
        raise InputError(
            f"Expected a network among {', '.join(known)}, cnn-N or mlp-N (N times as wide, 2 to "
            f"64), torchvision/... or timm/..., but got {name!r}."
            f"{did_you_mean(name, known)}"
        )


def _plain(name: str) -> tuple[str, int]:
    """Return the network that a name is about, and how many times as wide it is.

    Example:
        >>> _plain("mlp-4"), _plain("resnet18")
        (('mlp', 4), ('resnet18', 1))
    """
    widened = _WIDENED.fullmatch(name)
    return (widened[1], int(widened[2])) if widened else (name, 1)


def _cnn_features(channels: int, height: int, width: int, times: int) -> nn.Sequential:
    first, second = 16 * times, 32 * times
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), times * _FEATURES),
        nn.ReLU(),
    )


def _mlp_features(inputs: int, times: int) -> nn.Sequential:
    inner, width = 2 * times * _FEATURES, times * _FEATURES
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, inner),
        nn.ReLU(),
        nn.Linear(inner, width),
        nn.ReLU(),
    )


def _text_features(vocabulary: int) -> nn.Sequential:
    return nn.Sequential(
        MeanEmbedding(vocabulary, _EMBEDDING), nn.Linear(_EMBEDDING, _FEATURES), nn.ReLU()
    )
