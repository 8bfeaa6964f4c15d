"""Flower's strategies by their own names, each of which keeps its global models and its lineage.

A line of import is all that a ServerApp changes::

    from disinherit.flower import FedAvg

They are subclasses of Flower's, and do the same; `unlearnable` does it to any other strategy.
"""

from collections.abc import Iterable
from typing import Any

import flwr.serverapp.strategy as _flower
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from disinherit.common.errors import InputError
from disinherit.flower.recording import is_recorded, recording

_NONE = ("Strategy", "Result")


def _make(name: str) -> type[_flower.Strategy]:
    """Return the subclass of a strategy of Flower that keeps what it makes."""
    base: type[_flower.Strategy] = getattr(_flower, name)

    def start(self: _flower.Strategy, grid: Grid, *arguments: Any, **named: Any) -> _flower.Result:
        if is_recorded(self):
            return base.start(self, grid, *arguments, **named)
        with recording(self, grid):
            return base.start(self, grid, *arguments, **named)

    def configure_train(
        self: _flower.Strategy,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        if not is_recorded(self):
            raise InputError(
                f"Expected the strategy that is started to keep what {name} makes, but another one "
                "wraps it. Import that one from disinherit.flower, too."
            )
        return base.configure_train(self, server_round, arrays, config, grid)

    methods = {
        "__doc__": base.__doc__,
        "__module__": __name__,
        "start": start,
        "configure_train": configure_train,
    }
    return type(name, (base,), methods)


def __dir__() -> list[str]:
    return sorted({*_flower.__all__} - {*_NONE})


def __getattr__(name: str) -> type[_flower.Strategy]:
    if name not in __dir__():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _make(name)
    made: type[_flower.Strategy] = globals()[name]
    return made
