"""How long, and how fast, each embedded network is trained where nobody says."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class TrainingDefaults:
    """A training that ends by itself.

    Attributes:
        learning_rate: of Adam.
        epochs: at most; small data sets need many, as an epoch of theirs has few steps.
        patience: epochs without a lower loss on tuning samples, after which it ends.
    """

    learning_rate: float = 1e-3
    epochs: int = 100
    patience: int = 5


_BY_NETWORK: Mapping[str, TrainingDefaults] = MappingProxyType(
    {
        "text": TrainingDefaults(learning_rate=1e-2),
        "lstm": TrainingDefaults(learning_rate=3e-3),
        "efficientnet-lite0": TrainingDefaults(learning_rate=2e-4),
    }
)


def training_defaults(network: str) -> TrainingDefaults:
    """Return the training of a network that suits most data sets.

    Args:
        network: its name, as of `NetworkSpec`.

    Example:
        >>> training_defaults("text").learning_rate, training_defaults("cnn").learning_rate
        (0.01, 0.001)
    """
    return _BY_NETWORK.get(network, TrainingDefaults())
