"""Requests to forget in a Flower app, carried out in a run of it: classes, samples, or a node.

What trained is known from the recorded lineage, so a request names classes, positions of a node's
samples, or a node, and no models.  A request that was carried out in part goes on when it is made
again: nodes that were away meanwhile are asked, and nothing is done twice.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CampaignError, RequestError
from disinherit.common.files import write_atomic
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.method import Method
from disinherit.common.text import one_line
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SALT_BYTES, SampleDigests
from disinherit.flower.app_owners import ServerOwner
from disinherit.flower.everyone import EveryoneTransport
from disinherit.flower.finding import find_app
from disinherit.flower.functions import AppFunctions
from disinherit.flower.nodes import KnownNodes, check_any
from disinherit.flower.owner_apps import DIGESTS, RECORD, OwnerApp
from disinherit.flower.places import SERVER, folder_of, place_of
from disinherit.flower.recording import opened_store
from disinherit.flower.repeated_rounds import RepeatedRounds
from disinherit.flower.trained import TrainedUpdates, check_trained, nothing_trained
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.remedies import EXACT
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.flower.exchange import error_line, exchange
from disinherit.server.states import TaskState
from disinherit.server.store.store import CoordinatorStore

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

_NAMED = 10
"""Most updates that a line lists."""

_NOT_TOLD = {
    "gone": "were trained on data that is gone, or not the same any more",
    "other": "were trained on other data, where positions are those of other samples",
}
"""Entry of a node's answer -> why updates in it are not asked to forget samples."""


def forget(
    grid: Grid,
    context: Context,
    *,
    classes: Sequence[str] = (),
    samples: Mapping[str, Sequence[str | int]] | None = None,
    client: str = "",
    request_id: str = "",
    reason: str = "",
    method: Method | None = None,
    app: OwnerApp | None = None,
    hand_down: bool = False,
    timeout: float = 600.0,
    say: Callable[[str], object] = _log.info,
) -> CampaignResult:
    """Forget classes, samples or a node's whole contribution in all that an app has trained.

    Args:
        grid: the grid of the running Flower app.
        context: the context of its ServerApp.
        classes: names of classes; forgotten in each update that was trained on one, and in all
            that descends from it.
        samples: owner -> ids of its samples: their positions in its data set, unless its data say
            more.
        client: an owner that leaves, such as `node-1`, and takes all that it contributed with it.
        request_id: a permanent id; by default one that follows from what is asked.
        reason: why, for people.
        method: how to unlearn.
        app: what the nodes run; by default the ClientApp of the Flower app.
        hand_down: whether models of later rounds get the change of the updates that learned the
            samples.  By default these rounds are trained again without the samples, where that is
            exact.
        timeout: seconds to wait for a node's answer.
        say: gets a line for people for each step that takes long.

    Returns:
        The state of every affected model.

    Raises:
        RequestError: if nothing, or more than one kind, is to be forgotten; or nobody trained on
            it.
        CampaignError: if no node is there, or one cannot name its samples or repeat its rounds.
        InputError: if the ClientApp is no `owner_app`.
    """
    _check_kinds(classes, samples, client)
    functions = (app or find_app(grid)).functions
    if classes and functions.server_data is None:
        raise RequestError(
            "Expected data of the server to forget classes, since global models are compared with "
            "what they know of the others. Give owner_app server_data=, some held-out samples."
        )
    check_trained(functions.name, [functions.package])
    with opened_store(functions) as store:
        nodes = KnownNodes(grid, place_of(functions, SERVER) / "owners.toml")
        graph = store.graph()
        if not any(True for _ in graph.models()):
            raise nothing_trained(functions.name)
        nodes.meet(list(grid.get_node_ids()))
        check_any(nodes)
        transport = EveryoneTransport(grid, nodes, functions, dict(context.run_config))
        coordinator = Coordinator(store, transport, timeout)
        asked = _Asked(grid, nodes, graph, timeout)
        request = asked.request(classes, samples or {}, client, request_id, reason, method)
        known = {record.owner for record in graph.models()}
        reached = sorted(known & {SERVER, *nodes.owners})
        scope = request.method.scope if classes else "head"
        for owner, why in coordinator.register(reached, scope).items():
            _log.warning("%s did not register all of its models: %s", owner, one_line(why))
        repeated: dict[str, str] = {}
        if samples and not hand_down:
            with ServerOwner(functions, dict(context.run_config)) as server:
                exact = _made_exactly(store)
                rounds = RepeatedRounds(
                    grid, nodes, graph, server, request.id, asked.ids, exact, timeout, say
                )
                repeated = _repeat(coordinator, request, rounds, say)
        coordinator.submit(request)
        result = coordinator.run(request.id, repeated=repeated)
        _save_newest(store, functions)
    return result


def _repeat(
    coordinator: Coordinator,
    request: Request,
    rounds: RepeatedRounds,
    say: Callable[[str], object],
) -> dict[str, str]:
    """Train the rounds after the samples again, where that can be exact; return the digests."""
    if request.id in coordinator.store.requests():
        return rounds.known()
    planned = coordinator.preview(request, notes=False).models
    targets = [one.model_id for one in planned if one.state is TaskState.PENDING]
    possible, why = rounds.split(targets)
    if why:
        count = len(targets) - len(possible)
        say(f"the change is handed down to {count} models, which are not made again: {why}")
    return rounds.run(possible) if possible else {}


def _made_exactly(store: CoordinatorStore) -> set[str]:
    """Return the versions that requests made as training without what they forgot gives them."""
    tasks = (task for id in store.requests() for task in store.tasks(id).values())
    results = (task.result for task in tasks if task.result is not None)
    return {one.successor.id for one in results if one.remedy in EXACT}


def newest_model(app: str) -> Path:
    """Return where the weights of the newest global model are after a request: a `state_dict`.

    Args:
        app: name of the app.
    """
    return folder_of(app, SERVER) / "final_model.pt"


class _Asked:
    """What a person asks for, in the terms of the graph.

    Args:
        grid: Flower's grid of the run.
        nodes: the nodes that are there.
        graph: the recorded lineage.
        timeout: seconds to wait for a node's answer.

    Attributes:
        ids: owner -> ids of the samples to forget, as its node knows them.
    """

    def __init__(
        self, grid: Grid, nodes: KnownNodes, graph: InheritanceGraph, timeout: float
    ) -> None:
        self.ids: dict[str, list[str]] = {}
        self._grid = grid
        self._nodes = nodes
        self._timeout = timeout
        self._trained = TrainedUpdates(graph)
        if lost := self._trained.lost:
            _log.warning(
                "%d updates were not kept by their nodes, so what they learned stays: %s",
                len(lost),
                _listed(lost),
            )

    def request(
        self,
        classes: Sequence[str],
        samples: Mapping[str, Sequence[str | int]],
        client: str,
        request_id: str,
        reason: str,
        method: Method | None,
    ) -> Request:
        """Return the request.

        Raises:
            RequestError: if nobody trained on what is to be forgotten, or the client is unknown.
            CampaignError: if a node with samples to forget does not answer.
        """
        self._trained.check_owners([*samples, *([client] if client else [])])
        return Request(
            forget=self._trained.of_classes(classes),
            samples=self._of_samples(samples),
            client=client,
            id=request_id,
            reason=reason,
            method=method or Method(),
        )

    def _of_samples(self, samples: Mapping[str, Sequence[str | int]]) -> dict[str, SampleDigests]:
        """Return update -> digests of the samples among some that it was trained on."""
        found: dict[str, SampleDigests] = {}
        for owner, ids in samples.items():
            if not ids:
                raise RequestError(f"Expected ids of samples of {owner!r} to forget, but got none.")
            found |= self._digests(owner, sorted({str(id) for id in ids}))
        return found

    def _digests(self, owner: str, ids: list[str]) -> dict[str, SampleDigests]:
        """Ask a node for the digests of its samples, and which updates it trained on them."""
        node = self._nodes.node(owner)
        if node is None:
            raise CampaignError(
                f"Expected the node of {owner!r} to be connected, which alone knows its samples, "
                f"but there are {', '.join(self._nodes.owners)}. Start it and ask again."
            )
        updates = [update.id for update in self._trained.updates if update.owner == owner]
        # The same samples again give the same salt, so that the request is the same one.
        salt = hashlib.sha256("\0".join([owner, *ids]).encode()).hexdigest()[: 2 * SALT_BYTES]
        asked = RecordDict({RECORD: ConfigRecord({"models": updates, "ids": ids, "salt": salt})})
        message = Message(asked, node, DIGESTS, ttl=self._timeout)
        ((_, reply),) = exchange(self._grid, {owner: message}, self._timeout)
        if reply is None or reply.has_error():
            why = "it did not answer" if reply is None else error_line(reply)
            raise CampaignError(f"Expected {owner} to name its samples, but: {why}")
        answer = reply.content.config_records[RECORD]
        digests = tuple(map(str, cast("list[str]", answer["digests"])))
        named = SampleDigests(salt, digests, ignore_unknown=True)
        models = {*cast("list[str]", answer["models"])} & {*updates}
        self.ids[owner] = list(map(str, cast("list[str]", answer["ids"])))
        for key, why in _NOT_TOLD.items():
            if unasked := sorted({*cast("list[str]", answer.get(key, []))} & {*updates}):
                _log.warning(
                    "%d updates of %s %s, so what they may have learned of these samples stays: %s",
                    len(unasked),
                    owner,
                    why,
                    _listed(unasked),
                )
        return dict.fromkeys(sorted(models), named)


def _listed(models: Sequence[str]) -> str:
    return ", ".join(models[:_NAMED]) + (", ..." if models[_NAMED:] else "")


def _check_kinds(
    classes: Sequence[str], samples: Mapping[str, Sequence[str | int]] | None, client: str
) -> None:
    """Refuse a request for nothing, or for more than one kind of things."""
    if isinstance(classes, str):
        raise RequestError(
            f"Expected a list of class names, but got the text {classes!r}. Write [{classes!r}]."
        )
    asked = {"classes": classes, "samples": samples, "client": client}
    given = [what for what, value in asked.items() if value]
    if len(given) != 1:
        raise RequestError(
            "Expected either classes, samples or a client to forget, but got "
            f"{' and '.join(given) or 'none'}."
        )


def _save_newest(store: CoordinatorStore, functions: AppFunctions) -> None:
    """Write the weights of the newest global model, in the order of the app's network."""
    graph = store.graph()
    models = [one for one in graph.models() if one.owner == SERVER]
    active = [one for one in models if one.status is ModelStatus.ACTIVE]
    if not active:
        return

    def age(record: ModelRecord) -> tuple[int, int]:
        origin = (record.id, *graph.origins(record.id))[-1]
        return graph.model(origin).created_us, record.created_us

    models_of_server = ModelStore(place_of(functions, SERVER) / "models", SERVER)
    try:
        weights = models_of_server.weights(max(active, key=age).id)
    finally:
        models_of_server.close()
    written = io.BytesIO()
    torch.save(dict(weights), written)
    write_atomic(newest_model(functions.name), written.getvalue())
