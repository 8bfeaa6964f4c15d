"""Owner apps: a Flower ClientApp that keeps what it trains and answers requests to forget.

::

    app = owner_app(ClientApp(), model=Net, data=load_data)

Handlers go on the app as before.  A reply of training is what it was, with one more record: the
number of samples of each class.  What cannot be kept is logged, and named in the reply; it never
stops training.
"""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from disinherit.client.client_app import build_client_app
from disinherit.client.owner.failures import explain
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import CampaignError, InputError
from disinherit.common.graph.records import Provenance
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.text import one_line
from disinherit.common.wire.messages import ACTIONS
from disinherit.common.wire.samples import digest_samples
from disinherit.describing import describe_model
from disinherit.flower.app_owners import NodeOwner
from disinherit.flower.functions import AppFunctions, app_functions, call
from disinherit.flower.training_replay import TrainFunction, TrainingReplay, generator_states
from disinherit.flower.trainings import Training
from disinherit.server.recording.flower_updates import (
    DATASET_KEY,
    SAMPLES_KEY,
    class_names,
    tensors,
)
from disinherit.server.recording.recorder import CREATED_KEY, MODEL_KEY

RECORD = "disinherit"
"""Name of the record that a reply of training has in addition."""

NOT_KEPT = "not-kept"
"""Entry of that record: why the node did not keep its update."""

DIGESTS = "query.digests"
"""Message that asks a node for the digests of some of its samples."""

REPEAT = "train.repeat"
"""Message that lets a node train an update again from another start, without some samples."""

_TRAIN = ("train", "train.default")
_log = logging.getLogger(__name__)


class OwnerApp(ClientApp):
    """A ClientApp whose node is an owner of models.

    Args:
        app: the app as it was, which has the handlers.
        functions: of the app.

    Attributes:
        functions: of the app.
    """

    def __init__(self, app: ClientApp, functions: AppFunctions) -> None:
        super().__init__()
        self.functions = functions
        self._app = app
        self._train: TrainFunction | None = None

    def open(self, message: Message, context: Context) -> NodeOwner:
        """Open the owner that a node is.

        Args:
            message: to be answered.
            context: its context.
        """
        replay = TrainingReplay(self.functions, self._train, message, context)
        return NodeOwner(self.functions, context, replay)

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message; keep what was trained for it, and what that began with."""
        kind = message.metadata.message_type
        if kind in ACTIONS:
            return build_client_app(partial(self.open, message))(message, context)
        if kind == DIGESTS:
            return self._digests(message, context)
        if kind == REPEAT:
            return self._repeat(message, context)
        task = RecordDict(dict(message.content)) if kind in _TRAIN else RecordDict()
        if not _is_recorded(task):
            return self._app(message, context)
        states = generator_states()
        reply = self._app(message, context)
        if not reply.has_error():
            reply.content[RECORD] = self._keep(message, task, states, context, reply.content)
        return reply

    def train(self, action: str = "default", *, mods: Any = None) -> Callable[[Any], Any]:
        """Register a train function, as with any ClientApp."""
        register = self._app.train(action, mods=mods)

        def registered(function: Any) -> Any:
            if action == "default":
                self._train = function
            return register(function)

        return registered

    def evaluate(self, action: str = "default", *, mods: Any = None) -> Callable[[Any], Any]:
        """Register an evaluate function, as with any ClientApp."""
        return self._app.evaluate(action, mods=mods)

    def query(self, action: str = "default", *, mods: Any = None) -> Callable[[Any], Any]:
        """Register a query function, as with any ClientApp."""
        return self._app.query(action, mods=mods)

    def lifespan(self) -> Callable[[Any], Any]:
        """Register what is done around each message, as with any ClientApp."""
        return self._app.lifespan()

    def _keep(
        self,
        message: Message,
        task: RecordDict,
        states: dict[str, Any],
        context: Context,
        reply: RecordDict,
    ) -> ConfigRecord:
        """Keep an update; return what the reply has in addition."""
        try:
            with self.open(message, context) as owner:
                return ConfigRecord(self._kept(owner, task, states, context, reply))
        except Exception as error:  # including errors of the app's functions: training goes on
            reason = one_line(explain(error, "keep an update"))
            _log.warning("the update was not kept: %s", reason)
            return ConfigRecord({NOT_KEPT: reason})

    def _kept(
        self,
        owner: NodeOwner,
        task: RecordDict,
        states: dict[str, Any],
        context: Context,
        reply: RecordDict,
    ) -> dict[str, Any]:
        arrays = dict(reply.array_records)
        if not arrays:
            raise InputError("Expected arrays in the reply of a training, but it has none.")
        weights = tensors(arrays.get("arrays", next(iter(arrays.values()))))
        network = call(self.functions.model, "the model", owner.values)
        _fill(network, weights)
        labels = self.functions.labels or class_names(weights)
        samples, _ = owner.load(owner.values)
        counts = torch.bincount(torch.tensor(samples.targets), minlength=len(labels)).tolist()
        if len(counts) != len(labels):
            raise InputError(
                f"Expected targets below {len(labels)}, the number of classes, but got "
                f"{len(counts) - 1}. Give owner_app all labels."
            )
        told = {name: _plain(record) for name, record in task.config_records.items()}
        said = {key: value for one in told.values() for key, value in one.items()}
        record = describe_model(
            said[MODEL_KEY],
            network,
            owner=owner.store.owner,
            labels=labels,
            created_us=said[CREATED_KEY],
            provenance=Provenance(self.functions.package, dict(zip(labels, counts, strict=True))),
        )
        (given,) = task.array_records
        start = tensors(task.array_records[given])
        whole = len(told) + 1 == len(task) and all(
            len(one) == len(task.config_records[name]) for name, one in told.items()
        )
        training = Training(
            start=weights_digest(start),
            node_config=dict(context.node_config),
            run_config=dict(context.run_config),
            told=told,
            arrays=given if whole else "",
            states=states,
            data=samples.digest,
            positions=samples.positions,
        )
        owner.trainings.keep(record.id, training, start)
        owner.store.add(record, weights)
        return {SAMPLES_KEY: counts, DATASET_KEY: self.functions.package}

    def _digests(self, message: Message, context: Context) -> Message:
        """Return the digests of samples, so that no id is stored elsewhere, and who knows them."""
        asked = message.content.config_records[RECORD]
        names = cast("list[str]", asked["ids"])
        with self.open(message, context) as owner:
            models = cast("list[str]", asked["models"])
            records = {model: owner.store.record(model) for model in models}
            latest = sorted(records.values(), key=lambda one: one.created_us, reverse=True)
            known = {model: {*owner.sample_ids(record)} for model, record in records.items()}
            named = owner.ids_named(latest, {*names})
            if missing := [name for name in names if name not in named]:
                everything = set().union(*known.values())
                raise CampaignError(
                    f"Expected ids of samples that {owner.store.owner} trained on, but "
                    f"{len(missing)} of {len(names)} are of none. An id is a position in the "
                    f"node's data set, from 0 on, unless its data say more; {len(everything)} are "
                    "known."
                )
            ids = named.values()
            digests = digest_samples(sample_key(owner.store.root), cast("str", asked["salt"]), ids)
        trained = [model for model in models if not known[model].isdisjoint(ids)]
        gone = [model for model in models if not known[model]]
        # By positions nothing is known of updates that other data made.
        told = all(id == name for name, id in named.items())
        other = [] if told else [model for model in models if model not in {*trained, *gone}]
        content = ConfigRecord(
            {
                "digests": list(digests.digests),
                "ids": list(ids),
                "models": trained,
                "gone": gone,
                "other": other,
            }
        )
        return Message(RecordDict({RECORD: content}), reply_to=message)

    def _repeat(self, message: Message, context: Context) -> Message:
        """Return an update made again, and as it was; only the latter without a start."""
        asked = message.content.config_records[RECORD]
        request, model = cast("str", asked["request"]), cast("str", asked["model"])
        with self.open(message, context) as owner:
            record = owner.store.record(model)
            was = made = owner.store.weights(model)
            if (start := message.content.array_records.get("start")) is not None:
                owner.repeated.sweep()
                made = owner.repeat(record, tensors(start), cast("list[str]", asked["without"]))
                owner.repeated.keep(request, model, made)
            else:
                owner.check_exact(record)
        content = RecordDict({"arrays": ArrayRecord(made), "was": ArrayRecord(was)})
        return Message(content, reply_to=message)


def owner_app(
    app: ClientApp,
    *,
    model: Callable[..., nn.Module],
    data: Callable[..., object],
    labels: Iterable[str] | None = None,
    server_data: Callable[..., object] | str | None = None,
    batch: Callable[[object], object] | None = None,
) -> OwnerApp:
    """Return a ClientApp that keeps what it trains and answers requests to forget.

    What a function takes is looked up by name in the configuration of the node and of the run:
    `partition_id` is `partition-id`.

    Args:
        app: the app, for instance `ClientApp()`; its handlers are added to what is returned.
        model: makes a module of the network, for instance its class.
        data: loads a node's data: a loader, or a tuple of a training loader and a held-out one.
        labels: class names in the order of logits; `"0"`, `"1"`, ... by default.
        server_data: loads held-out data of the server, likewise; or its name in the module of
            `data`. Without, global models can forget samples and nodes, and no classes.
        batch: makes (inputs, targets) of a batch. Pairs, and dicts with one tensor of inputs and
            one of targets (`label`, `labels`, `target`, `targets` or `y`), need none.

    Raises:
        InputError: if it is no ClientApp, or something else is no function.
        LabelError: if the labels are no distinct texts.

    Example:
        >>> from torch.nn import Linear
        >>> app = owner_app(ClientApp(), model=lambda: Linear(2, 2), data=list)
        >>> app.functions.labels is None
        True
    """
    given = cast("object", app)
    if not isinstance(given, ClientApp) or isinstance(given, OwnerApp):
        raise InputError(
            f"Expected owner_app to be given a ClientApp of Flower, but got a "
            f"{type(given).__name__}. Write owner_app(ClientApp(), model=Net, data=load_data)."
        )
    module = str(sys._getframe(1).f_globals.get("__name__", ""))  # of the app: others may be shared
    made = OwnerApp(app, app_functions(model, data, labels, server_data, batch, module))
    _MADE[:] = [made]
    return made


_MADE: list[OwnerApp] = []


def latest_app() -> OwnerApp | None:
    """Return the owner app that was made last in this process; `None` without any."""
    return _MADE[0] if _MADE else None


def _is_recorded(content: RecordDict) -> bool:
    """Whether the server records the round of a task of training."""
    return any(MODEL_KEY in record for record in content.config_records.values())


def _plain(record: ConfigRecord) -> dict[str, Any]:
    """Return what a record says, without bytes, which JSON cannot hold."""
    return {key: value for key, value in record.items() if not isinstance(value, bytes)}


def _fill(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Load weights into a network.

    Raises:
        InputError: if they are of another one.
    """
    own = network.state_dict()
    odd = sorted(own.keys() ^ weights.keys())
    odd += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if odd:
        raise InputError(
            f"Expected the arrays of a reply to be the weights of {type(network).__name__}, but "
            f"{odd[0]!r} is not in both alike. Give owner_app the app's own model."
        )
    network.load_state_dict(weights)
