"""Queue of versions for the lineage, delivered in order; its failures never stop training."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from disinherit.common.errors import InputError
from disinherit.common.graph.records import Inheritance, ModelRecord

_log = logging.getLogger(__name__)


class LineageSink(Protocol):
    """Destination of versions and their edges, parents first, such as a `CoordinatorStore`."""

    def add_model(self, record: ModelRecord, parents: Iterable[Inheritance]) -> object:
        """Add a version with all its parents.

        An `InputError` means a permanent refusal; after any other error the outbox tries again.
        """
        ...


class Outbox:
    """Delivers versions to a sink, retries failed deliveries, and records permanent losses.

    Args:
        sink: the destination.
    """

    def __init__(self, sink: LineageSink) -> None:
        self._sink = sink
        self._waiting: list[tuple[ModelRecord, list[Inheritance]]] = []
        self._stalled = ""
        self._lost: list[str] = []
        self._warned = False

    @property
    def errors(self) -> list[str]:
        """The missing versions with reasons."""
        waiting = [
            f"{record.id} is not recorded yet: {self._stalled}" for record, _ in self._waiting
        ]
        return self._lost + waiting

    def submit(self, record: ModelRecord, edges: Iterable[Inheritance]) -> bool:
        """Deliver a version after the waiting ones; return whether it is delivered or waits."""
        self._waiting.append((record, list(edges)))
        lost = len(self._lost)
        return not self.flush() or len(self._lost) == lost

    def flush(self) -> bool:
        """Try to deliver all waiting versions; return whether none is left."""
        while self._waiting:
            record, edges = self._waiting[0]
            try:
                self._sink.add_model(record, edges)
            except InputError as error:
                self.lose(f"{record.id} was refused: {error}")
            except Exception as error:  # no error of a sink may stop training
                self._stalled = f"{type(error).__name__}: {error}"
                self._warn(f"{record.id} is not recorded yet: {self._stalled}")
                return False
            del self._waiting[0]
        return True

    def lose(self, what: str) -> None:
        """Record a permanent loss."""
        self._lost.append(what)
        self._warn(what)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Record an error in the block as a loss, and continue."""
        try:
            yield
        except Exception as error:  # no error may stop training
            self.lose(f"{what} is not recorded: {error or type(error).__name__}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            _log.warning(
                "The recorded lineage is incomplete; training continues. `errors` of the recorder "
                "lists all that is missing. First: %s",
                what,
            )
        self._warned = True
