"""Versions on their way into the lineage, handed over in order and never at training's expense."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from disinherit.common.errors import InputError
from disinherit.common.graph.records import Inheritance, ModelRecord

_log = logging.getLogger(__name__)


class LineageSink(Protocol):
    """Takes versions and what they were derived from, parents first; a `CoordinatorStore` does."""

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance]) -> object:
        """Add a version with all its parents.

        An `InputError` says that it is refused for good; any other error, that it may be offered
        again later.
        """
        ...


class Outbox:
    """Hands versions to a sink, keeps those it cannot take yet, and notes those it never will.

    Args:
        sink: where they go.
    """

    def __init__(self, sink: LineageSink) -> None:
        self._sink = sink
        self._waiting: list[tuple[ModelRecord, list[Inheritance]]] = []
        self._stalled = ""
        self._lost: list[str] = []
        self._warned = False

    @property
    def errors(self) -> list[str]:
        """What is missing, and why; empty while nothing is."""
        waiting = [
            f"{record.id} is not recorded yet: {self._stalled}" for record, _ in self._waiting
        ]
        return self._lost + waiting

    def submit(self, record: ModelRecord, edges: Iterable[Inheritance]) -> bool:
        """Hand over a version after those that wait; return whether it is there or waits."""
        self._waiting.append((record, list(edges)))
        lost = len(self._lost)
        return not self.flush() or len(self._lost) == lost

    def flush(self) -> bool:
        """Offer what the sink has not taken yet once more; return whether nothing is left."""
        while self._waiting:
            record, edges = self._waiting[0]
            try:
                self._sink.add_model(record, edges)
            except InputError as error:
                self.lose(f"{record.id} was refused: {error}")
            except Exception as error:  # a sink is not ours, and training goes on whatever it does
                self._stalled = f"{type(error).__name__}: {error}"
                self._warn(f"{record.id} is not recorded yet: {self._stalled}")
                return False
            del self._waiting[0]
        return True

    def lose(self, what: str) -> None:
        """Note what will never be there."""
        self._lost.append(what)
        self._warn(what)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Note what goes wrong in the block, and go on."""
        try:
            yield
        except Exception as error:  # whatever it is, training matters more
            self.lose(f"{what} is not recorded: {error or type(error).__name__}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            _log.warning(
                "The recorded lineage is incomplete and training goes on; `errors` of the recorder "
                "lists all that is missing. First: %s",
                what,
            )
        self._warned = True
