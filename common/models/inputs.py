"""Batches of a data loader: the inputs of a model, one tensor or several, and class indices."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from disinherit.common.errors import FisherError, NoSamplesError
from disinherit.common.models.devices import runs_out_of_memory

Inputs = Tensor | Sequence[Tensor]
"""A tensor `[n, ...]`, or several: the positional arguments of a model."""


def unpack_batch(item: object, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the positional arguments of the model, and the targets.

    Args:
        item: item of a loader.
        index: index of the batch.

    Raises:
        FisherError: if the item is no pair of inputs and a tensor of targets.
    """
    if isinstance(item, Mapping):
        raise FisherError(
            f"Expected batch {index} to be (inputs, targets), but got {_keys(item)}. Let "
            "the loader yield pairs, such as (batch['x'], batch['y'])."
        )
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[1], Tensor):
        shown = f"{len(item)} items" if isinstance(item, list | tuple) else type(item).__name__
        raise FisherError(
            f"Expected batch {index} to be (inputs, targets) with a tensor of targets, but got "
            f"{shown}."
        )
    return as_arguments(item[0]), item[1]


def first_inputs(batches: Iterable[object]) -> tuple[tuple[Tensor, ...], Iterable[object]]:
    """Return the inputs of the first batch with samples, and an iterable of all batches.

    Raises:
        NoSamplesError: if there is no sample.
        FisherError: if an item is no batch.
    """
    taken: list[object] = []
    iterator = iter(batches)
    for index, item in enumerate(iterator):
        taken.append(item)
        inputs, _ = unpack_batch(item, index)
        if len(inputs[0]):
            return inputs, chain(taken, iterator) if iterator is batches else batches
    raise NoSamplesError("Expected at least one sample, but got none in all batches.")


def as_arguments(inputs: object) -> tuple[Tensor, ...]:
    """Return the positional arguments of the model.

    Raises:
        FisherError: if they are not tensors with equally many rows.
    """
    if isinstance(inputs, Mapping):
        raise FisherError(
            f"Expected inputs to be tensors with one row per sample, but got {_keys(inputs)}. Give "
            "the values in the order of the model's arguments, as a tuple."
        )
    arguments = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    if not arguments:
        raise FisherError("Expected at least one input tensor, but got an empty sequence.")
    for tensor in arguments:
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise FisherError(
                f"Expected inputs to be tensors with one row per sample, but got "
                f"{tensor if isinstance(tensor, Tensor) else type(tensor).__name__}."
            )
    if len({tensor.shape[0] for tensor in arguments}) != 1:
        raise FisherError(
            f"Expected inputs with one row per sample each, but got shapes "
            f"{[list(tensor.shape) for tensor in arguments]}."
        )
    return arguments


def refused_inputs(
    model: object, index: int, inputs: Sequence[Tensor], device: torch.device, error: Exception
) -> Exception:
    """Return the error to raise when a model fails on the inputs of a batch.

    Running out of memory is not a fault of the inputs: a smaller batch may fit.
    """
    if runs_out_of_memory(error):
        return torch.OutOfMemoryError(str(error))
    return FisherError(
        f"Expected inputs that {type(model).__name__} can take and differentiate, but batch {index}"
        f" with inputs {[list(tensor.shape) for tensor in inputs]} on {device} got "
        f"{type(error).__name__}",
        foreign=str(error),
    )


def to_device(inputs: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """Return the tensors on the device, without a graph."""
    moved = [tensor.detach().to(device, non_blocking=True) for tensor in inputs]
    # Autograd cannot save a tensor made in inference mode, but it can save a copy.
    return tuple(tensor.clone() if tensor.is_inference() else tensor for tensor in moved)


def take_rows(inputs: object, chosen: Tensor) -> tuple[Tensor, ...]:
    """Return some rows of all inputs of a batch.

    Args:
        inputs: the inputs.
        chosen: a mask `[n]`, or indices of rows.

    Raises:
        FisherError: if they are not tensors with the same number of rows.
    """
    return tuple(tensor[chosen.to(tensor.device)] for tensor in as_arguments(inputs))


def _keys(mapping: Mapping[object, object]) -> str:
    return f"a dict with the keys {', '.join(map(str, mapping))}"
