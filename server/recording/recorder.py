"""Recorder of lineage: makes a Flower strategy record its inheritance graph during training.

It takes two lines in an existing ServerApp: an import, and the one that makes the strategy::

    from disinherit import CoordinatorStore, record_lineage

    strategy = record_lineage(FedAvg(), CoordinatorStore("sqlite:///lineage.db"))

A round r of a federation becomes::

    <project>.r<r-1> --incremental--> <project>.r<r>.<owner> --federated--> <project>.r<r>

one version for the global model and one for every received update.  Versions are distinguished by
role and round, not by content: an update that equals the average is not its own parent.  Owners
that failed or did not answer contributed nothing and are not in the graph.

**Continuation.**  A federation that starts from weights in the store, bit for bit, is derived from
their version: of a stopped run, of another project, or any other version.  A recorded project
continues after its last round.  If the weights were changed before the start, name their origin as
`parent`.

**Weights** of the federated edges are the shares of `num-examples` (or of `weighted_by_key`), as
in `FedAvg`.  Strategies that select or clip updates (Krum, medians, differential privacy) do not
report what they used: every update counts as a contribution, so the graph shows too much
inheritance rather than too little.

**Other aggregates.**  An aggregate that is not exactly the weighted mean (server momentum, Adam,
Yogi, Adagrad, medians, noise, any unknown strategy) also has an incremental edge from the previous
global model, since it was computed from it.

**Provenance** of an update is recorded if the reply has, in a ConfigRecord or in its MetricRecord,
`samples-per-class`: the number of training samples of each class, in the order of the labels.
`dataset` names the data set.  Otherwise the provenance is unknown (`None`), not empty: a total
number of samples gives only the edge's weight.

**Training comes first.**  Messages, arrays and metrics are the same as without a recorder.  What
cannot be recorded is logged once as a warning and listed in `LineageRecorder.errors`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from disinherit.common.errors import InputError
from disinherit.common.graph.identifiers import check_id, check_owner
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.recording.flower_updates import (
    arrays_of,
    averages_only,
    class_names,
    provenance_of,
    shares,
    tensors,
)
from disinherit.server.recording.outbox import LineageSink, Outbox
from disinherit.server.recording.past import Memory, Past
from disinherit.server.store.registering import Announced

MODEL_KEY = "disinherit-model"
"""Entry of the train config: the update's version id."""

CREATED_KEY = "disinherit-created-us"
"""Entry of the train config: creation time of that version, in microseconds."""

S = TypeVar("S", bound=Strategy)


def node_name(node: int) -> str:
    """Return the default owner name of a Flower node.

    Example:
        >>> node_name(7)
        'node-7'
    """
    return f"node-{node}"


def record_lineage(
    strategy: S,
    sink: LineageSink,
    *,
    project: str = "",
    owner: str = "server",
    labels: Sequence[str] | None = None,
    owner_of: Callable[[int], str] = node_name,
    keep: Callable[[ModelRecord, Mapping[str, Tensor]], object] | None = None,
    announce: bool = False,
    parent: str | Sequence[str] = (),
) -> S:
    """Make a strategy record every round's aggregate and its contributions.

    Shorthand for `LineageRecorder(sink, ...).attach(strategy)`, with its arguments and errors.
    The recorder itself has `errors`: what could not be recorded.
    """
    recorder = LineageRecorder(
        sink,
        project=project,
        owner=owner,
        labels=labels,
        owner_of=owner_of,
        keep=keep,
        announce=announce,
        parent=parent,
    )
    return recorder.attach(strategy)


class LineageRecorder:
    """Records the lineage of one federation.

    If the global arrays changed outside the strategy, the new version is recorded as derived from
    the last aggregate.

    Args:
        sink: destination of versions and edges.
        project: prefix of every id; a recorded project is continued. `""` uses Flower's run,
            `run-<id>`.
        owner: the owner of the global models.
        labels: class names in the order of the head's rows; `None` numbers the rows of the last
            matrix, the head's: `"0"`, `"1"`, ...
        owner_of: Flower node id -> name of its owner; by default `node-` and the id.
        keep: called with every global version and its weights, for instance `ModelStore(...).add`,
            so that later requests can unlearn in them.
        announce: put `disinherit-model` and `disinherit-created-us` into every train config, so
            that an owner can store its update under the recorded id. An update that is too late
            for its round gets its edge when its owner registers it.
        parent: ids of versions that the first global model was derived from, if the weights do not
            show it.

    Raises:
        GraphError: if a parent is not recorded.
        InputError: if the project's or the owner's name is malformed.
    """

    def __init__(
        self,
        sink: LineageSink,
        *,
        project: str = "",
        owner: str = "server",
        labels: Sequence[str] | None = None,
        owner_of: Callable[[int], str] = node_name,
        keep: Callable[[ModelRecord, Mapping[str, Tensor]], object] | None = None,
        announce: bool = False,
        parent: str | Sequence[str] = (),
    ) -> None:
        self._outbox = Outbox(sink)
        self._memory = Memory(sink, self._outbox)
        self._given = self._memory.check([parent] if isinstance(parent, str) else list(parent))
        self._past: Past | None = None
        self._project = check_id(project, "project name", InputError) if project else ""
        self._owner = check_owner(owner)
        self._labels = None if labels is None else tuple(labels)
        self._owner_of = owner_of
        self._keep = keep
        self._announce = announce
        self._time_us = 0
        self._ids: set[str] = set()
        self._global: ModelRecord | None = None
        self._announced: dict[int, tuple[str, int]] = {}
        self._contributions: list[tuple[str, object]] = []
        self._received = 0

    @property
    def errors(self) -> list[str]:
        """The missing parts of the record, with reasons."""
        return self._outbox.errors

    def attach(self, strategy: S) -> S:
        """Record the rounds of `strategy` from now on.

        Returns:
            The same strategy; only its `configure_train` and `aggregate_train` are wrapped.
        """
        configure, aggregate = strategy.configure_train, strategy.aggregate_train

        def configure_train(
            server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            with self._outbox.guard(f"the global model before round {server_round}"):
                self._see_global(server_round, arrays, grid)
            messages = configure(server_round, arrays, config, grid)
            if not self._announce:
                return messages
            announced = list(messages)
            with self._outbox.guard(f"the announcements of round {server_round}"):
                self._tell(server_round, announced)
            return announced

        def aggregate_train(
            server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            received = list(replies)
            # Before the strategy: some strategies modify the replies' arrays.
            with self._outbox.guard(f"the updates of round {server_round}"):
                self._see_updates(server_round, received, strategy)
            arrays, metrics = aggregate(server_round, received)
            if arrays is not None:
                with self._outbox.guard(f"the aggregate of round {server_round}"):
                    self._see_aggregate(server_round, arrays, strategy)
            return arrays, metrics

        vars(strategy).update(configure_train=configure_train, aggregate_train=aggregate_train)
        return strategy

    def flush(self) -> bool:
        """Try to deliver all waiting versions; the next round does so automatically.

        Returns:
            Whether none is left.
        """
        return self._outbox.flush()

    def _see_global(self, server_round: int, arrays: ArrayRecord, grid: Grid) -> None:
        if not self._project:
            self._project = f"run-{grid.run.run_id}"
        self._outbox.flush()
        first = self._past is None
        past = self._look_back()
        state = tensors(arrays)
        digest = weights_digest(state)
        if self._global is not None and digest == self._global.digest:
            return
        alike = self._memory.with_weights(digest)
        own = [record for record in alike if record.id in past.globals]
        if first and own:
            self._global = own[-1]
            return
        parents = [record.id for record in alike] + (self._given if first else [])
        if not parents and (self._global is not None or not first):
            parents = [self._known_global().id]
        self._time_us = max([self._time_us, *(record.created_us for record in alike)])
        derived, copied = dict.fromkeys(parents, 1.0), len(parents) == len(alike) == 1
        self._record_global(server_round - 1, state, derived, {}, copied=copied)

    def _look_back(self) -> Past:
        """Return the earlier records of the project, and continue from them."""
        if self._past is None:
            self._past = self._memory.past(self._project)
            self._ids |= self._past.ids
            self._global = self._past.latest
            if self._global is not None:
                self._time_us = self._global.created_us
        return self._past

    def _see_updates(
        self, server_round: int, replies: Sequence[Message], strategy: Strategy
    ) -> None:
        self._contributions, self._received = [], 0
        announced, self._announced = self._announced, {}
        start = self._known_global().id
        for reply in replies:
            if reply.has_error() or (found := arrays_of(reply.content, strategy)) is None:
                continue
            self._received += 1
            arrays, weight = found
            node = reply.metadata.src_node_id
            with self._outbox.guard(f"the update of node {node} in round {server_round}"):
                name = self._name(node)
                version = announced.pop(node, None) or self._version(server_round, name)
                record = self._describe(version, name, tensors(arrays), reply.content)
                edge = Inheritance(start, record.id, InheritanceKind.INCREMENTAL)
                if self._outbox.submit(record, [edge]):
                    self._contributions.append((record.id, weight))

    def _see_aggregate(self, server_round: int, arrays: ArrayRecord, strategy: Strategy) -> None:
        contributions, self._contributions = self._contributions, []
        previous = self._known_global().id
        parts = shares([weight for _, weight in contributions], strategy)
        merged = {id: part for (id, _), part in zip(contributions, parts, strict=True) if part > 0}
        # An update that could not be recorded was derived from the previous global model.
        whole = len(contributions) == self._received
        derived = {} if merged and whole and averages_only(strategy) else {previous: 1.0}
        self._record_global(server_round, tensors(arrays), derived, merged)

    def _record_global(
        self,
        server_round: int,
        state: dict[str, Tensor],
        derived: Mapping[str, float],
        merged: Mapping[str, float],
        *,
        copied: bool = False,
    ) -> None:
        record = self._describe(self._version(server_round), self._owner, state)
        # Without an edge from the previous model it is known to be the plain average, or a copy.
        recipe = Recipe.AVERAGE if copied or not derived else None
        parents = [(InheritanceKind.INCREMENTAL, *one) for one in derived.items()]
        parents += [(InheritanceKind.FEDERATED, *one) for one in merged.items()]
        edges = [
            Inheritance(parent, record.id, kind, weight, {}, recipe, place if recipe else 0)
            for place, (kind, parent, weight) in enumerate(parents, 1)
        ]
        if self._outbox.submit(record, edges):
            self._global = record
            if self._keep is not None:
                self._keep(record, state)

    def _known_global(self) -> ModelRecord:
        if self._global is None:
            raise InputError("Expected a record of the previous global model, but it was lost.")
        return self._global

    def _tell(self, server_round: int, messages: Iterable[Message]) -> None:
        """Announce to each node, in its train config, the version id of its update."""
        self._announced = {}
        for message in messages:
            node = message.metadata.dst_node_id
            configs = message.content.config_records
            if not configs or node in self._announced:
                continue
            id, created = self._version(server_round, self._name(node))
            key, config = next(iter(configs.items()))
            # The strategy's messages share their content: copy it for this one.
            content = RecordDict(dict(message.content))
            content[key] = ConfigRecord({**config, MODEL_KEY: id, CREATED_KEY: created})
            message.content = content
            self._announced[node] = id, created
        if self._global is not None:
            start, announced = self._global.id, self._announced.items()
            self._memory.announce(Announced(id, self._name(n), start) for n, (id, _) in announced)

    def _name(self, node: int) -> str:
        try:
            return check_owner(self._owner_of(node))
        except Exception as error:  # a caller's function; the update counts anyway
            self._outbox.lose(f"the owner of node {node} is not recorded: {error!r}")
            return node_name(node)

    def _version(self, server_round: int, owner: str = "") -> tuple[str, int]:
        """Return an unused id, and a time later than all earlier ones."""
        number = server_round + (self._past.rounds if self._past is not None else 0)
        base = f"{self._project}.r{number}" + (f".{owner}" if owner else "")
        id, count = base, 1
        while id in self._ids:
            count += 1
            id = f"{base}-{count}"
        self._ids.add(id)
        self._time_us = max(time.time_ns() // 1000, self._time_us + 1)
        return id, self._time_us

    def _describe(
        self,
        version: tuple[str, int],
        owner: str,
        state: Mapping[str, Tensor],
        reply: RecordDict | None = None,
    ) -> ModelRecord:
        id, created_us = version
        labels = class_names(state) if self._labels is None else self._labels
        provenance = None
        if reply is not None:
            with self._outbox.guard(f"the provenance of {id}"):
                provenance = provenance_of(reply, labels)
        return ModelRecord(
            id=id,
            owner=owner,
            architecture=architecture_fingerprint(state),
            labels=labels,
            digest=weights_digest(state),
            created_us=created_us,
            provenance=provenance,
        )
