"""Functions of a Flower app that make its model and load its data, called by name of argument.

What a function takes is looked up by name in the node's configuration and in that of the run:
`partition_id` is `partition-id`, as in Flower's own apps.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from disinherit.common.errors import InputError, LabelError
from disinherit.flower.projects import project_of

T = TypeVar("T")
Values = Mapping[str, object]
"""Configuration: name -> value."""


@dataclass(frozen=True, slots=True)
class AppFunctions:
    """What an app says of its model and its data.

    Attributes:
        model: makes a module of the app's network; its weights are overwritten.
        data: loads a node's data: a loader, or training loader and held-out loader.
        labels: class names in the order of logits; `None` for `"0"`, `"1"`, ...
        server_data: loads the server's data, likewise; `None` if it has none.
        batch: makes (inputs, targets) of a batch; `None` to find them by their names.
        name: of the app, and of the folder with its models: its project's; without one, `package`.
        package: of its model; its data has this name in the records.
    """

    model: Callable[..., nn.Module]
    data: Callable[..., object]
    labels: tuple[str, ...] | None
    server_data: Callable[..., object] | None
    batch: Callable[[object], object] | None
    name: str
    package: str


def app_functions(
    model: Callable[..., nn.Module],
    data: Callable[..., object],
    labels: Iterable[str] | None,
    server_data: Callable[..., object] | str | None,
    batch: Callable[[object], object] | None,
    module: str,
) -> AppFunctions:
    """Return what an app says of its model and its data, checked as far as it can be without it.

    Args:
        model: as in `AppFunctions`, and so are the others.
        data: likewise.
        labels: likewise.
        server_data: likewise, or its name in the module of `data`.
        batch: likewise.
        module: the module that says it.

    Raises:
        InputError: if something is no function, or the module of `data` has no `server_data`.
        LabelError: if the labels are no distinct texts.
    """
    given: object = server_data
    if isinstance(server_data, str):
        given = getattr(sys.modules.get(data.__module__), server_data, None)
        if given is None:
            raise InputError(
                f"Expected server_data to name a function beside {data.__module__}."
                f"{data.__name__}, but there is no {server_data!r}. Give the function itself."
            )
    named = {"model": model, "data": data, "server_data": given, "batch": batch}
    for what, function in named.items():
        if not callable(function) and (function is not None or what in ("model", "data")):
            raise InputError(
                f"Expected a function as {what} of an owner app, but got "
                f"{type(function).__name__}. Give the one that the app has, without calling it."
            )
    if labels is not None:
        labels = (labels,) if isinstance(labels, str) else tuple(labels)
        if len({*labels}) < max(2, len(labels)) or not all(isinstance(one, str) for one in labels):
            raise LabelError(
                f"Expected labels of an owner app to be two or more distinct class names, but got "
                f"{', '.join(map(repr, labels)) or 'none'}."
            )
    modules = [module, *(str(getattr(one, "__module__", "")) for one in (data, model))]
    package = modules[-1].partition(".")[0].strip("_") or "app"
    name = project_of(modules) or package
    return AppFunctions(model, data, labels, given, batch, name, package)  # type: ignore[arg-type]


def call(function: Callable[..., T], what: str, values: Values) -> T:
    """Call a function of the app with what it takes of the configuration.

    Args:
        function: the function.
        what: what it is, for an error.
        values: configuration of the node and of the run.

    Raises:
        InputError: if it takes something that is not there.
    """
    given: list[object] = []
    named: dict[str, object] = {}
    for one in inspect.signature(function).parameters.values():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        key = next((k for k in (one.name, one.name.replace("_", "-")) if k in values), None)
        if key is None:
            if one.default is one.empty:
                raise InputError(
                    f"Expected {what} of an owner app to take values of the node's or the run's "
                    f"configuration ({', '.join(sorted(values)) or 'none'}), but it takes "
                    f"{one.name!r}. Give a function that does without."
                )
        elif one.kind is one.POSITIONAL_ONLY:
            given.append(values[key])
        else:
            named[one.name] = values[key]
    return function(*given, **named)
