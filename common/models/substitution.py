"""Calls of a model with substituted parameters; its own parameters are untouched."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def call_with(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Any:
    """Return the model's output for inputs, with some of its parameters replaced.

    A replacement applies wherever the model uses the parameter: in tied layers, and once in a layer
    with several names.  `torch.func.functional_call` would restore such a layer's replacement
    instead of its parameter, so it gets one name per place.  Afterwards every place holds its
    original object again.

    Args:
        model: the model.
        parameters: replacements, by their names in `named_parameters()`.
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
        place: parameters[name]
        for place, (_, _, parameter) in places.items()
        if (name := names.get(id(parameter), "")) in parameters  # `""`: one that it does not list
    }
    if limited := _limited(model):
        # Such a layer renormalises rows of its weight in place.
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
    """Restore parameters that forward passes change.

    Embeddings with a `max_norm` renormalise the rows that are looked up, permanently.
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
