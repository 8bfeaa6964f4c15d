"""Structure of a model as it is known: the layers of its head, and its tied parameters."""

import json
from dataclasses import dataclass

from torch import nn

from disinherit.common.models.heads import Head, HeadLayer


@dataclass(frozen=True, slots=True)
class Structure:
    """What is known of a model's structure.

    Attributes:
        head: the layers that make its logits; `None` if there are none, or nobody could see.
        reason: why there is no head; `""` if there is one.
        ties: names of the same parameter, in the order of the network, for every one with several.
        seen: whether a forward pass showed it.
    """

    head: Head | None
    reason: str
    ties: tuple[tuple[str, ...], ...]
    seen: bool = True

    def to_json(self) -> str:
        """Return it as text."""
        head = self.head
        values = head and {
            "layers": [[layer.module, layer.weight, layer.bias] for layer in head.layers],
            "exact": head.exact,
            "gauge_free": head.gauge_free,
        }
        return json.dumps({"head": values, "reason": self.reason, "ties": self.ties})

    @classmethod
    def from_json(cls, text: str) -> "Structure":
        """Return what `to_json` wrote."""
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
    """Return the names of every parameter of a network that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(several) for several in names.values() if len(several) > 1)
