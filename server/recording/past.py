"""Earlier records of a project: its rounds, and versions with the weights of its start."""

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
    """Source of recorded versions, such as a `CoordinatorStore`."""

    def ids_from(self, prefix: str) -> Sequence[str]:
        """Return the ids of all versions that begin with a prefix."""
        ...

    def records(self, ids: Iterable[str]) -> Mapping[str, ModelRecord]:
        """Return id -> record, of the versions that exist."""
        ...

    def with_weights(self, digest: str) -> Sequence[ModelRecord]:
        """Return the versions with these weights, except ancestors of another such version."""
        ...

    def announce(self, versions: Iterable[Announced]) -> None:
        """Record the ids announced to owners for their updates."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """The recorded versions of a project.

    Attributes:
        ids: all used ids.
        rounds: number of the last round.
        globals: ids of its global models.
        latest: the youngest global model of the last round, if any.
    """

    ids: frozenset[str] = frozenset()
    rounds: int = 0
    globals: frozenset[str] = frozenset()
    latest: ModelRecord | None = None


class Memory:
    """Queries about the recorded lineage; their failures never stop training.

    Args:
        sink: the lineage; queries find nothing if it is not a `LineageSource`.
        outbox: records failed queries.
    """

    def __init__(self, sink: object, outbox: Outbox) -> None:
        self._source = sink if isinstance(sink, LineageSource) else None
        self._outbox = outbox

    def check(self, ids: list[str]) -> list[str]:
        """Return ids unchanged, after a check that they are recorded if the sink can tell.

        Raises:
            GraphError: if a version is not recorded.
        """
        there = ids if self._source is None else self._source.records(ids)
        for id in ids:
            if id not in there:
                raise GraphError(f"Expected ids of recorded versions as parents, but got {id!r}.")
        return ids

    def past(self, project: str) -> Past:
        """Return the recorded versions of a project."""
        if self._source is not None:
            with self._outbox.guard(f"the earlier lineage of {project}"):
                return _find_past(self._source, project)
        return Past()

    def with_weights(self, digest: str) -> Sequence[ModelRecord]:
        """Return the versions with these weights, except ancestors of another such version."""
        if self._source is not None:
            with self._outbox.guard("the version with the weights of the global model"):
                return self._source.with_weights(digest)
        return ()

    def announce(self, versions: Iterable[Announced]) -> None:
        """Record the ids announced to owners for their updates."""
        if self._source is not None:
            self._source.announce(versions)


def _find_past(source: LineageSource, project: str) -> Past:
    """Return the versions of a project in a store."""
    ids = source.ids_from(f"{project}.r")
    global_id = re.compile(rf"{re.escape(project)}\.r([0-9]+)(?:-[0-9]+)?")
    rounds = {id: int(found[1]) for id in ids if (found := global_id.fullmatch(id))}
    if not rounds:
        return Past(frozenset(ids))
    last = max(rounds.values())
    youngest = source.records(id for id, number in rounds.items() if number == last)
    latest = max(youngest.values(), key=lambda record: (record.created_us, record.id))
    return Past(frozenset(ids), last, frozenset(rounds), latest)
