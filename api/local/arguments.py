"""Arguments of a network in one process, checked: each wrong one is refused in one line."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from disinherit.common.errors import GraphError, InputError, LabelError, RequestError
from disinherit.common.fields import is_iterable
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.records import Inheritance, InheritanceKind

_LONGEST_NAME = 64
_LONGEST_SHOWN = 60


def shown(value: object) -> str:
    """Return a value as an error shows it: a short text or number itself, of others the type."""
    text, kind = repr(value), type(value).__name__
    if isinstance(value, str | int | float | None) and len(text) <= _LONGEST_SHOWN:
        return text
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def check_name(name: str) -> None:
    """Refuse what is no name of a model.

    Raises:
        GraphError: if it is malformed or too long.
    """
    if not isinstance(name, str):
        raise GraphError(f"Expected a model name, but got {shown(name)}.")
    check_id(name, "model name")
    if "~" in name or len(name) > _LONGEST_NAME:
        raise GraphError(
            f"Expected a model name of at most {_LONGEST_NAME} characters without '~', but got "
            f"{name!r}."
        )


def check_module(name: str, model: nn.Module) -> None:
    """Refuse what is no module, or one that cannot be copied, called and written to.

    Raises:
        InputError: if it is something else, it or a part of it is a wrapper for several devices, or
            it has parameters without values or of inference mode.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"Expected a torch.nn.Module as model {name!r}, but got {shown(model)}.")
    for path, part in model.named_modules():
        if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
            whole = f"model.{path}" if path else "model"
            raise InputError(
                f"Expected model {name!r} without wrappers for several devices, but {whole} is "
                f"{shown(part)}. Give {whole}.module in its place."
            )
    for tensor_name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor) or tensor.is_meta:
            raise InputError(
                f"Expected a trained model {name!r}, but its {tensor_name} has no values yet. Call "
                "the model on a batch, or load its weights, and train it."
            )
        if tensor.is_inference():
            raise InputError(
                f"Expected a model {name!r} that can be changed, but its {tensor_name} was made in "
                "inference mode. Give copy.deepcopy(model), made outside of it."
            )


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return class names in the order of logits.

    Raises:
        LabelError: if they are not several texts, or one comes twice.
    """
    if isinstance(labels, str) or not is_iterable(labels):
        raise LabelError(f"Expected a list of class names as labels, but got {shown(labels)}.")
    names = tuple(labels)
    for name in names:
        if not isinstance(name, str):
            raise LabelError(f"Expected class names as labels, but one is {shown(name)}.")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise LabelError(
            f"Expected distinct class names as labels, but got {repeated[0]!r} more "
            "than once. Give each class a name of its own."
        )
    return names


def listed(names: str | Sequence[str], what: str) -> list[str]:
    """Return one name or several as a list, each once.

    Args:
        names: the names.
        what: what they name, for an error.

    Raises:
        RequestError: if there is none, or one is no text.
    """
    if isinstance(names, str):
        return [names]
    if not is_iterable(names):
        raise RequestError(f"Expected names of {what}, but got {shown(names)}.")
    found = list(names)
    for name in found:
        if not isinstance(name, str):
            raise RequestError(f"Expected names of {what}, but one is {shown(name)}.")
    if not found:
        raise RequestError(f"Expected names of {what}, but got none.")
    return list(dict.fromkeys(found))


def renamed_classes(
    parents: str | Sequence[str] | Mapping[str, Mapping[str, str]],
) -> dict[str, Mapping[str, str]]:
    """Return parent -> the parent's class names that are others in the child.

    Raises:
        GraphError: if they are no names, or something other than a mapping of names.
    """
    if isinstance(parents, str):
        return {parents: {}}
    if not is_iterable(parents):
        raise GraphError(f"Expected names of models as parents, but got {shown(parents)}.")
    if not isinstance(parents, Mapping):
        parents = {parent: {} for parent in _models(parents)}
    for parent, names in parents.items():
        if not isinstance(names, Mapping):
            raise GraphError(
                f"Expected a mapping from class names of parent {shown(parent)} to its own, but "
                f"got {shown(names)}."
            )
    return dict(parents)


def _models(names: Iterable[object]) -> Iterator[str]:
    for name in names:
        if not isinstance(name, str):
            raise GraphError(f"Expected names of models as parents, but one is {shown(name)}.")
        yield name


def edges_to(name: str, parents: Mapping[str, Mapping[str, str]]) -> list[Inheritance]:
    """Return the edges from parents: an average of several, or the transfer from one.

    Args:
        name: the child.
        parents: parent -> its class names that are others in the child.
    """
    kind = InheritanceKind.TRANSFER if len(parents) == 1 else InheritanceKind.DISTRIBUTED
    return [
        Inheritance(parent, name, kind, 1 / len(parents), renamed)
        for parent, renamed in parents.items()
    ]


def usable_device(device: torch.device | str | None) -> torch.device | None:
    """Return a device that can compute; `None` for that of the first model.

    Raises:
        InputError: if this machine, or this PyTorch, has no such device.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).tolist()
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise InputError(
            f"Expected a device that this PyTorch computes on here, such as 'cpu', but got "
            f"{str(device)!r}."
        ) from error
    return found
