"""Recipes: how a version was computed from its parents, without any training.

A recipe is the name of a computation and its parameters.  The computations themselves are in
`disinherit.common.recipes`; the graph and the coordinator only pass their names on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from disinherit.common.errors import GraphError
from disinherit.common.fields import settle
from disinherit.common.limits import shown

_NAME = re.compile(r"[a-z][a-z0-9_.+-]{0,63}")
_VALUE = re.compile(r"[A-Za-z0-9_.,:+-]{1,1024}")
_MOST = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """A computation that makes a version of its parents, the same bit for bit whenever it is run.

    `Recipe.AVERAGE` is the sum of the parents' weights, each multiplied by the weight of its edge.

    Attributes:
        name: name of the computation.
        parameters: parameter -> value, both as text.

    Raises:
        GraphError: if a name or a value is malformed, or there are more than 16 parameters.

    Example:
        >>> str(Recipe("ties", {"weights": "1,1", "density": "0.5"}))
        'ties density=0.5 weights=1,1'
    """

    AVERAGE: ClassVar["Recipe"]
    """As FedAvg does: multiplied in the dtype of each tensor, added in the order of places."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        settle(self, "a recipe", GraphError)
        if not _NAME.fullmatch(self.name):
            raise GraphError(
                "Expected the name of a recipe, 1 to 64 characters of a-z, 0-9 and _ . + - that "
                f"start with a letter, but got {shown(self.name)}."
            )
        if len(self.parameters) > _MOST:
            raise GraphError(
                f"Expected at most {_MOST} parameters of recipe {self.name!r}, but got "
                f"{len(self.parameters)}."
            )
        for key, value in self.parameters.items():
            if not (_NAME.fullmatch(key) and _VALUE.fullmatch(value)):
                raise GraphError(
                    f"Expected parameters of recipe {self.name!r} as KEY=VALUE, of letters, digits "
                    f"and _ . , : + -, but got {shown(f'{key}={value}')}."
                )

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={self.parameters[key]}" for key in self._keys())])

    def __reduce__(self) -> tuple[object, ...]:
        return Recipe, (self.name, dict(self.parameters))

    def _keys(self) -> list[str]:
        return sorted(self.parameters)


Recipe.AVERAGE = Recipe("average")


def as_recipe(text: str) -> Recipe:
    """Return the recipe that a text names: `NAME`, and `KEY=VALUE` after spaces.

    Raises:
        GraphError: if the text is malformed, or names a parameter twice.

    Example:
        >>> as_recipe("linear weights=0.6,0.4")
        Recipe(name='linear', parameters=mappingproxy({'weights': '0.6,0.4'}))
    """
    name, *pairs = text.split(" ")
    parameters: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in parameters:
            raise GraphError(f"Expected parameter {key!r} of recipe {shown(text)} once.")
        parameters[key] = value
    return Recipe(name, parameters)
