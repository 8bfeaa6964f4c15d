"""Training as a Flower message: from the parents' average to a registered model version.

The handler joins the deployment's ClientApp, so that models are trained by the very owners that
later unlearn.  A replay without the data to forget (the exact retraining) is the same message with
those classes left out; its model is not kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from disinherit.client.actions.evaluate import confusion_counts
from disinherit.client.client_app import build_client_app
from disinherit.common.errors import CampaignError, DisinheritError
from disinherit.common.graph.proto import record_from_proto, record_to_proto
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.devices import pick_device
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.run.fitting import Fit, fit_weights, warm_up
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What training gave: the record and the weights."""

    record: ModelRecord
    weights: Weights

    def message(self, order: Message) -> Message:
        """Return the reply to the message that ordered it."""
        content = RecordDict(
            {
                "weights": ArrayRecord(torch_state_dict=self.weights),
                "fitted": ConfigRecord(
                    {"record": record_to_proto(self.record).SerializeToString()}
                ),
            }
        )
        return Message(content, reply_to=order)

    @classmethod
    def from_reply(cls, model: str, reply: Message | None) -> "Fitted":
        """Read an owner's reply.

        Raises:
            CampaignError: if it did not come, or reports that training failed.
        """
        if reply is None:
            raise CampaignError(f"Expected model {model!r} to be trained, but no answer came.")
        reason = _failure(reply)
        if reason:
            raise CampaignError(f"Expected model {model!r} to be trained, but: {reason}")
        values = reply.content["fitted"]
        weights = reply.content["weights"]
        assert isinstance(values, ConfigRecord)
        assert isinstance(weights, ArrayRecord)
        record = values["record"]
        assert isinstance(record, bytes)
        return cls(
            record_from_proto(RecordProto.FromString(record)), dict(weights.to_torch_state_dict())
        )


def build_simulation_app(
    settings: Settings, folder: Path, runs: Mapping[str, Settings] | None = None
) -> ClientApp:
    """Return the deployment's ClientApp for the simulated owners, able to train as well.

    Args:
        settings: of the run whose owners answer the coordinator.
        folder: where they keep their models.
        runs: settings of further runs to train for, by name.
    """

    def open_owner(context: Context, settings: Settings = settings) -> SimulatedOwner:
        warm_up()
        return SimulatedOwner(settings, int(str(context.node_config["partition-id"])), folder)

    app = build_client_app(open_owner)

    @app.train("fit")
    def _fit(message: Message, context: Context) -> Message:
        fit = Fit.from_message(message)
        start = message.content.get("start")
        weights = None
        if isinstance(start, ArrayRecord):
            weights = dict(start.to_torch_state_dict())
        own = (runs or {}).get(fit.run, settings)
        try:
            with open_owner(context, own) as owner:
                return fit_model(owner, own, fit, weights).message(message)
        except DisinheritError as error:
            content = RecordDict({"failed": ConfigRecord({"reason": str(error)})})
            return Message(content, reply_to=message)

    return app


def fit_model(owner: SimulatedOwner, settings: Settings, fit: Fit, start: Weights | None) -> Fitted:
    """Train a model on its owner's share of the data, and register it unless it is a replay.

    Args:
        owner: the owner.
        settings: of the run.
        fit: what to train.
        start: the parents' average; `None` to start from the federation's initialisation.

    Returns:
        The record as it is stored, or would be, and the weights on the CPU.

    Raises:
        DataError: if the owner has no data left to train on, or the weights are no longer finite.
        StoreError: if the model cannot be registered.
    """
    labels = owner.data.dataset.classes if fit.labels is None else fit.labels
    weights, targets = fit_weights(settings, owner.data, owner.index, fit, start, owner.device)
    counts = torch.bincount(targets, minlength=len(labels)).tolist()
    record = ModelRecord(
        id=fit.model,
        owner=owner.store.owner,
        architecture=architecture_fingerprint(weights),
        labels=labels,
        digest=weights_digest(weights),
        created_us=fit.created_us,
        provenance=Provenance(owner.data.dataset.name, dict(zip(labels, counts, strict=True))),
    )
    if fit.keep:
        record = owner.store.add(record, weights)
    return Fitted(record, weights)


def confusion(
    settings: Settings, data: SharedData, weights: Weights, space: Sequence[str] | None = None
) -> list[list[int]]:
    """Return confusion counts `[C, C]` of given weights on the evaluation split.

    They are what an owner that holds the weights would answer; row = true class, column =
    predicted class.

    Args:
        settings: of the run.
        data: of the run.
        weights: of a model.
        space: its classes in the order of its head's rows; `None` for those of the data set.
    """
    classes = len(data.dataset.classes if space is None else space)
    network = settings.network_spec(data.dataset, classes).build(settings.seed)
    network.load_state_dict(weights)
    counts = confusion_counts(
        network, data.evaluation(space), classes, pick_device(settings.device)
    )
    rows: list[list[int]] = counts.tolist()
    return rows


def _failure(reply: Message) -> str:
    """Return why training failed; `""` if it did not."""
    if reply.has_error():
        # Flower quotes the client's whole stack trace; the last line says what happened.
        last = (reply.error.reason or "no reason given").strip().splitlines()[-1]
        return last.rpartition("ClientAppException: ")[2].removesuffix("'>")
    failed = reply.content.get("failed")
    return str(failed["reason"]) if isinstance(failed, ConfigRecord) else ""
