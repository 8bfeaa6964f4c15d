"""Repetition of the rounds of a federation without some samples, before a request is applied.

A change handed down is one step.  But later rounds trained on what they got, and figures seldom
show that it suffices.  So the rounds from the first one on that learned the samples are trained
again: each node repeats its updates from what becomes of their starts, without the samples, and the
server averages them as it did.  Each version is then what it would have been.  Nothing changes yet:
the weights are kept, and the campaign of the request puts them in their places.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from disinherit.common.errors import CampaignError
from disinherit.common.files import write_atomic
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, ModelStatus
from disinherit.common.graph.rules import computed_from
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.flower.app_owners import ServerOwner
from disinherit.flower.nodes import KnownNodes
from disinherit.flower.owner_apps import RECORD, REPEAT
from disinherit.flower.places import SERVER
from disinherit.server.flower.exchange import error_line, exchange
from disinherit.server.planning.recipes import birth, origin
from disinherit.server.recording.flower_updates import tensors

_INSTEAD = (
    "Ask again when that is mended, or have the change handed down instead (--hand-down), which is "
    "one step, and often cannot be shown to suffice."
)

Weights = Mapping[str, Tensor]


class RepeatedRounds:
    """The repetition for one request.

    Args:
        grid: Flower's grid of the run.
        nodes: the nodes that are there.
        graph: the recorded lineage.
        server: the owner of the global models.
        request_id: the request.
        samples: owner -> ids of its samples to leave out.
        exact: versions that earlier requests made exactly, as by such a repetition.
        timeout: seconds to wait for a node's answer.
        say: gets a line for people for each step.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: KnownNodes,
        graph: InheritanceGraph,
        server: ServerOwner,
        request_id: str,
        samples: Mapping[str, Sequence[str]],
        exact: Collection[str],
        timeout: float,
        say: Callable[[str], object],
    ) -> None:
        self._say = say
        self._grid = grid
        self._nodes = nodes
        self._graph = graph
        self._server = server
        self._request = request_id
        self._samples = samples
        self._exact = exact
        self._timeout = timeout
        self._new: dict[str, Weights] = {}
        self._was: dict[str, Weights] = {}

    def split(self, targets: Sequence[str]) -> tuple[list[str], str]:
        """Return the versions that can be made again, as far as is known here, and why not others.

        Args:
            targets: the versions that the request changes.

        Returns:
            The versions, and the first reason; `""` if all can.
        """
        possible: dict[str, str] = {}
        first_reason = ""
        lines = {origin(self._graph, model): model for model in targets}
        for first in sorted(lines, key=partial(birth, self._graph)):
            parents = {origin(self._graph, edge.parent) for edge in self._graph.parents(first)}
            reason = self._refusal(first, lines[first])
            first_reason = first_reason or reason
            if not reason and parents & lines.keys() <= possible.keys():
                possible[first] = lines[first]
        return list(possible.values()), first_reason

    def _refusal(self, first: str, model: str) -> str:
        """Return why a version, or what became of it, cannot be made again."""
        made = (model, *self._graph.origins(model))[:-1]
        if changed := [one for one in made if one not in self._exact]:
            return f"an earlier request made {changed[0]} otherwise, which that would undo"
        edges = self._graph.parents(first)
        if self._is_update(first):
            return "" if len(edges) == 1 else f"{first} has not one start"
        if not computed_from(edges):
            return f"{first} is no plain average of its updates"
        return ""

    def run(self, targets: Sequence[str]) -> dict[str, str]:
        """Make versions again, and keep them at their owners; return their digests.

        What was made before for the request is not made again.

        Args:
            targets: the versions that the request changes.

        Raises:
            CampaignError: if a node is not there, or cannot repeat what it trained.
            StoreError: if a global model is gone.
        """
        if known := self.known():
            return known
        self._server.repeated.sweep()
        left = {origin(self._graph, model): model for model in targets}
        ordered = sorted(left, key=partial(birth, self._graph))
        digests: dict[str, str] = {}
        while ordered:
            updates = [one for one in ordered if self._is_update(one) and self._ready(one, ordered)]
            globals_ = [one for one in ordered if one not in updates and self._ready(one, ordered)]
            if updates:
                self._say(f"training {len(updates)} updates again without the samples")
                digests |= self._repeat({one: left[one] for one in updates})
            else:
                digests |= {left[one]: self._compute(one, left[one]) for one in globals_}
            ordered = [one for one in ordered if one not in (updates or globals_)]
        text = json.dumps(digests, indent=1, sort_keys=True).encode()
        write_atomic(_digests_file(self._server.folder, self._request), text)
        return digests

    def known(self) -> dict[str, str]:
        """Return version -> digest of its weights in an earlier repetition; empty without one."""
        path = _digests_file(self._server.folder, self._request)
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def _is_update(self, first: str) -> bool:
        return self._graph.model(first).owner != SERVER

    def _ready(self, first: str, left: Sequence[str]) -> bool:
        parents = (origin(self._graph, edge.parent) for edge in self._graph.parents(first))
        return all(parent not in left for parent in parents)

    def _repeat(self, updates: Mapping[str, str]) -> dict[str, str]:
        """Let nodes repeat updates: origin -> version that the request changes."""
        asks = {}
        for first, model in updates.items():
            (edge,) = self._graph.parents(first)
            asks[first] = self._message(model, self._of_server(edge.parent))
        for first, content in self._answers(asks):
            self._new[first] = tensors(content.array_records["arrays"])
            self._was[first] = tensors(content.array_records["was"])
        return {model: weights_digest(self._new[first]) for first, model in updates.items()}

    def _message(self, model: str, start: Weights | None) -> Message:
        """Return the message that asks for an update again, or, without a start, as it is."""
        owner = self._graph.model(model).owner
        node = self._nodes.node(owner)
        if node is None:
            raise CampaignError(
                f"Expected the node of {owner!r} to be connected, to repeat {model!r} without the "
                f"samples, but there are {', '.join(self._nodes.owners)}. {_INSTEAD}"
            )
        without = list(self._samples.get(owner, ()))
        config = ConfigRecord({"request": self._request, "model": model, "without": without})
        content = RecordDict({RECORD: config})
        if start is not None:
            content["start"] = ArrayRecord(dict(start))
        return Message(content, node, REPEAT, ttl=self._timeout)

    def _answers(self, asks: Mapping[str, Message]) -> Iterator[tuple[str, RecordDict]]:
        for first, reply in exchange(self._grid, asks, self._timeout):
            if reply is None or reply.has_error():
                why = "it did not answer" if reply is None else error_line(reply)
                owner = self._graph.model(first).owner
                raise CampaignError(f"Expected {owner} to repeat {first}, but: {why} {_INSTEAD}")
            yield first, reply.content

    def _of_server(self, model: str) -> Weights:
        """Return the weights of a global model, made again if it is one that is."""
        first = origin(self._graph, model)
        if first in self._new:
            return self._new[first]
        return self._server.store.weights(self._present(model))

    def _present(self, model: str) -> str:
        """Return what takes the place of a version after earlier requests."""
        while heirs := self._graph.successors(model):
            active = [h for h in heirs if self._graph.model(h).status is not ModelStatus.RETIRED]
            if not active:
                break
            model = active[-1]
        return model

    def _compute(self, first: str, model: str) -> str:
        """Compute a global model again, and return the digest of its new weights."""
        edges = computed_from(self._graph.parents(first))
        others = [e.parent for e in edges if origin(self._graph, e.parent) not in self._new]
        asks = {
            parent: self._message(self._present(parent), None)
            for parent in others
            if self._is_update(parent)
        }
        for parent, content in self._answers(asks):
            self._new[parent] = self._was[parent] = tensors(content.array_records["arrays"])
        like = self._server.store.weights(model)
        if model == first:
            made = self._average(edges, like, before=True)
            if not all(torch.equal(made[name], value) for name, value in like.items()):
                raise CampaignError(
                    f"Expected {first} when its updates are averaged again, but that gives other "
                    f"weights. {_INSTEAD}"
                )
        self._new[first] = self._average(edges, like, before=False)
        self._was[first] = like
        return self._server.repeated.keep(self._request, model, self._new[first])

    def _average(
        self, edges: Sequence[Inheritance], like: Weights, *, before: bool
    ) -> dict[str, Tensor]:
        parents = []
        for edge in edges:
            first = origin(self._graph, edge.parent)
            if self._is_update(first):
                weights = self._was[first] if before else self._new[first]
            else:
                weights = self._server.store.weights(edge.parent)
                weights = weights if before else self._of_server(edge.parent)
            parents.append(Parent(partial(dict, weights), edge.weight))
        return compute(edges[0].recipe or Recipe.AVERAGE, parents, like)


def _digests_file(folder: Path, request_id: str) -> Path:
    made = folder / "repetitions"
    made.mkdir(exist_ok=True)
    return made / f"{request_id}.json"
