"""The interface of computations, their entry points, and one place that runs them.

A computation makes the tensors of a version of those of its parents, and the same bit for bit each
time.  Computations are entry points of the group `disinherit.recipes`, under the names that recipes
have, so another package adds its own by naming it there::

    [project.entry-points."disinherit.recipes"]
    mine = "my_package.merging:merge"

None of them needs to be trusted: a recipe is followed only where it makes a version, bit for bit,
of the parents as they were.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from disinherit.common.entry_points import installed
from disinherit.common.errors import CheckpointError, DisinheritError, InputError
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import shown
from disinherit.common.text import one_line

GROUP = "disinherit.recipes"


@dataclass(frozen=True, slots=True, eq=False)
class Parent:
    """A parent of a computed version.

    Attributes:
        load: reads its weights, name -> tensor; computations that can, hold one parent at a time.
        weight: weight of its edge.
    """

    load: Callable[[], Mapping[str, Tensor]]
    weight: float


class Computation(Protocol):
    """What makes a version of its parents."""

    def __call__(
        self, recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Return the tensors of the version.

        Args:
            recipe: the recipe, with its parameters.
            parents: the parents, in the order of their places.
            like: the version as it is.  Only its names, shapes and dtypes may be used, and tensors
                that describe a format and do not depend on weights.

        Raises:
            DisinheritError: if the parents or the parameters do not fit.
        """
        ...


def recipes() -> list[str]:
    """Return the names of the computations that are installed, sorted."""
    return list(installed(GROUP))


@torch.no_grad()
def compute(
    recipe: Recipe, parents: Sequence[Parent], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute a version from its parents.

    Args:
        recipe: how.
        parents: the parents, in the order of their places.
        like: the version as it is, which the result has the names, order and dtypes of.

    Returns:
        The tensors.  Integers of averages are rounded towards zero, as Flower's clients do.

    Raises:
        InputError: if no computation of that name is installed, or a parameter is wrong.
        CheckpointError: if the parents do not fit, or make other tensors.
    """
    point = installed(GROUP).get(recipe.name)
    if point is None:
        raise InputError(
            f"Expected a recipe among {', '.join(recipes())}, but got {recipe.name!r}. Install the "
            "package that brings it."
        )
    try:
        made = cast(Computation, point.load())(recipe, parents, like)
    except DisinheritError:
        raise
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected parents that fit recipe {recipe.name!r}, but got "
            f"{one_line(str(error), 200)}."
        ) from error
    if made.keys() != like.keys():
        other = min(made.keys() ^ like.keys())
        raise CheckpointError(
            f"Expected recipe {recipe.name!r} to make the tensors of the version, but it makes "
            f"others: {shown(other)}."
        )
    return {name: made[name].to(old.dtype) for name, old in like.items()}


def only_parent(recipe: Recipe, parents: Sequence[Parent]) -> Mapping[str, Tensor]:
    """Return the weights of the one parent of a copy.

    Raises:
        CheckpointError: if there is another number of parents.
    """
    if len(parents) != 1:
        raise CheckpointError(
            f"Expected one parent for recipe {recipe.name!r}, but got {len(parents)}."
        )
    return parents[0].load()


def parent_tensor(source: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor of the parent of a quantised copy.

    Args:
        source: weights of the parent.
        name: of the tensor.

    Raises:
        CheckpointError: if the parent does not have it.
    """
    if name not in source:
        raise CheckpointError(f"Expected a parent with {shown(name)}, as its quantised copy has.")
    return source[name]


def numbers(recipe: Recipe, key: str, count: int, default: float | None = None) -> list[float]:
    """Return numbers of a parameter such as `0.5,0.5`; one number stands for all.

    Raises:
        InputError: if the parameter is missing without a default, is no list of numbers, or has
            another length.

    Example:
        >>> numbers(Recipe("ties", {"density": "0.5"}), "density", 2)
        [0.5, 0.5]
    """
    text = recipe.parameters.get(key)
    if text is None and default is not None:
        return [default] * count
    try:
        found = [float(part) for part in (text or "").split(",")]
    except ValueError:
        found = []
    if len(found) == 1:
        found *= count
    if len(found) != count:
        raise InputError(
            f"Expected {key} of recipe {recipe.name!r} as {count} numbers with commas between "
            f"them, or one for all, but got {shown(str(text))}."
        )
    return found


def number(recipe: Recipe, key: str, default: float) -> float:
    """Return a parameter that is one number; errors as `numbers`."""
    return numbers(recipe, key, 1, default)[0]


def flag(recipe: Recipe, key: str, default: bool) -> bool:
    """Return a parameter that is `true` or `false`.

    Raises:
        InputError: if it is neither.
    """
    text = recipe.parameters.get(key, str(default).lower())
    if text not in ("true", "false"):
        raise InputError(
            f"Expected {key} of recipe {recipe.name!r} to be true or false, but got {shown(text)}."
        )
    return text == "true"


def same_tensors(parents: Sequence[Mapping[str, Tensor]], what: str) -> None:
    """Check that parents have the same tensors.

    Raises:
        CheckpointError: if names, shapes or dtypes differ.
    """
    first = parents[0]
    for other in parents[1:]:
        if other.keys() != first.keys():
            name = min(other.keys() ^ first.keys())
            raise CheckpointError(
                f"Expected parents of {what} with the same tensors, but got only in one of them "
                f"{shown(name)}."
            )
        for name, value in first.items():
            if (value.shape, value.dtype) != (other[name].shape, other[name].dtype):
                raise CheckpointError(
                    f"Expected parents of {what} with {shown(name)} as {value.dtype} "
                    f"{list(value.shape)}, but got {other[name].dtype} {list(other[name].shape)}."
                )
