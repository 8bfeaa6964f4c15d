"""Known structure of a model: the layers of its head, and its tied parameters."""

import json
from dataclasses import dataclass

from torch import nn

from disinherit.common.models.heads import Head, HeadLayer


@dataclass(frozen=True, slots=True)
class Structure:
    """Known structure of a model.

    Attributes:
        head: the layers of its logits; `None` for no head, or without data to find it.
        reason: reason for a missing head; `""` otherwise.
        ties: all names of each tied parameter, in the network's order.
        seen: whether a forward pass determined the head.
    """

    head: Head | None
    reason: str
    ties: tuple[tuple[str, ...], ...]
    seen: bool = True

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return all names of a parameter, by the first of them.

        Args:
            name: as in `named_parameters()`.
        """
        return next((tied for tied in self.ties if tied[0] == name), (name,))

    def to_json(self) -> str:
        """Return the JSON text of the structure."""
        head = self.head
        values = head and {
            "layers": [[layer.module, layer.weight, layer.bias] for layer in head.layers],
            "exact": head.exact,
            "gauge_free": head.gauge_free,
        }
        return json.dumps({"head": values, "reason": self.reason, "ties": self.ties})

    @classmethod
    def from_json(cls, text: str) -> "Structure":
        """Return the structure of a text of `to_json`."""
        values = json.loads(text)
        head = values["head"]
        return cls(
            head
            and Head(
                tuple(HeadLayer(*layer) for layer in head["layers"]),
                head["exact"],
                head["gauge_free"],
            ),
            values["reason"],
            tuple(tuple(names) for names in values["ties"]),
        )


def tied_names(network: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return all names of each tied parameter of a network."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(several) for several in names.values() if len(several) > 1)
