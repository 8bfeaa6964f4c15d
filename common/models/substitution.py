"""Calls of a model with other tensors in the place of its parameters, which stay as they are."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def call_with(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Any:
    """Return what a model makes of inputs with some of its parameters replaced.

    A replacement stands in every place of the model that holds the parameter: in other layers that
    are tied to it, and once in a layer that the model has under several names.
    `torch.func.functional_call` puts back such a layer's replacement, and not its parameter, so it
    is told one name for each place.  Afterwards every place holds the object it held before.

    Args:
        model: the model.
        parameters: replacements, by the names that `named_parameters()` gives.
        inputs: positional arguments.

    Returns:
        The model's output.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    places = {
        f"{path}.{attribute}" if path else attribute: (module, attribute, parameter)
        for path, module in model.named_modules()
        for attribute, parameter in module._parameters.items()
        if parameter is not None
    }
    replaced = {
        place: parameters[names[id(parameter)]]
        for place, (_, _, parameter) in places.items()
        if names[id(parameter)] in parameters
    }
    if limited := _limited(model):
        # Such a layer shortens rows of its weight in place.
        for place, (module, attribute, parameter) in places.items():
            if attribute == "weight" and module in limited:
                replaced[place] = replaced.get(place, parameter).clone()
    try:
        return functional_call(model, replaced, tuple(inputs), tie_weights=False)
    finally:
        for module, attribute, parameter in places.values():
            module._parameters[attribute] = parameter


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Undo what forward passes within change of a model's parameters.

    These are embeddings with a `max_norm`: they shorten the rows that are looked up, for good.
    """
    kept = [(layer.weight, layer.weight.detach().clone()) for layer in _limited(model)]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, values in kept:
                weight.copy_(values)


def _limited(model: nn.Module) -> list[nn.Embedding | nn.EmbeddingBag]:
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    ]
