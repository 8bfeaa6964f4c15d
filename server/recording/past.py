"""Knowledge of a store when a federation begins: its own rounds, and its start's weights."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from disinherit.common.errors import GraphError
from disinherit.common.graph.records import ModelRecord
from disinherit.server.recording.outbox import Outbox
from disinherit.server.store.registering import Announced


@runtime_checkable
class LineageSource(Protocol):
    """Answers what it holds already; a `CoordinatorStore` does."""

    def ids_from(self, prefix: str) -> Sequence[str]:
        """Return the ids of all versions that begin with a text."""
        ...

    def records(self, ids: Iterable[str]) -> Mapping[str, ModelRecord]:
        """Return id -> version, of those that exist."""
        ...

    def with_weights(self, digest: str) -> Sequence[ModelRecord]:
        """Return the versions with these weights, without those that another of them came from."""
        ...

    def announce(self, versions: Iterable[Announced]) -> None:
        """Note the versions that owners are told to make."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """What is recorded of a project.

    Attributes:
        ids: all ids that were given out.
        rounds: number of the last round.
        globals: ids of its global models.
        latest: the youngest of those of the last round; `None` if there is none.
    """

    ids: frozenset[str] = frozenset()
    rounds: int = 0
    globals: frozenset[str] = frozenset()
    latest: ModelRecord | None = None


class Memory:
    """What can be asked of the place where a lineage is kept, at no expense of training.

    Args:
        sink: the place; one that is no `LineageSource` knows nothing.
        outbox: notes what could not be asked.
    """

    def __init__(self, sink: object, outbox: Outbox) -> None:
        self._source = sink if isinstance(sink, LineageSource) else None
        self._outbox = outbox

    def check(self, ids: list[str]) -> list[str]:
        """Return ids of versions that are recorded, as far as can be asked.

        Raises:
            GraphError: if one is not.
        """
        there = ids if self._source is None else self._source.records(ids)
        for id in ids:
            if id not in there:
                raise GraphError(f"Expected ids of recorded versions as parents, but got {id!r}.")
        return ids

    def past(self, project: str) -> Past:
        """Return what is recorded of a project."""
        if self._source is not None:
            with self._outbox.guard(f"what there was of {project} before"):
                return _find_past(self._source, project)
        return Past()

    def with_weights(self, digest: str) -> Sequence[ModelRecord]:
        """Return the versions with these weights, without those that another of them came from."""
        if self._source is not None:
            with self._outbox.guard("which version has the weights of the global model"):
                return self._source.with_weights(digest)
        return ()

    def announce(self, versions: Iterable[Announced]) -> None:
        """Note the versions that owners are told to make."""
        if self._source is not None:
            self._source.announce(versions)


def _find_past(source: LineageSource, project: str) -> Past:
    """Return what a store holds of a project."""
    ids = source.ids_from(f"{project}.r")
    global_id = re.compile(rf"{re.escape(project)}\.r([0-9]+)(?:-[0-9]+)?")
    rounds = {id: int(found[1]) for id in ids if (found := global_id.fullmatch(id))}
    if not rounds:
        return Past(frozenset(ids))
    last = max(rounds.values())
    youngest = source.records(id for id, number in rounds.items() if number == last)
    latest = max(youngest.values(), key=lambda record: (record.created_us, record.id))
    return Past(frozenset(ids), last, frozenset(rounds), latest)
