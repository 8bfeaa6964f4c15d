"""Messages about changes of roots for one owner, and models of any network to change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.client.actions.delta import root_deltas
from disinherit.client.owner.owner import Owner
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import LABELS, SAMPLES, samples_root
from tests.support.retraining_owner import RetrainingOwner

DIGEST = "ab" * 32
"""Of the request."""


def delta_method(**changes: Any) -> Method:
    """All layers, no repair."""
    return replace(Method(mechanism="delta", scope="all", repair_steps=0), **changes)


def delta_question(
    owner: Owner, model: str, samples: Sequence[str], request_id: str = "q", **changes: Any
) -> pb.FisherTask:
    """Ask an owner for the change of one of its roots."""
    return pb.FisherTask(
        request_id=request_id,
        roots=[samples_root(model, owner.store.root, samples)],
        method=delta_method(**changes).to_proto(),
        request_digest=DIGEST,
    )


def asked_change(
    owner: Owner, model: str, samples: Sequence[str], request_id: str = "q", **changes: Any
) -> pb.FisherPacket:
    """What an owner answers about one of its roots."""
    task = delta_question(owner, model, samples, request_id, **changes)
    (answer,) = root_deltas(owner, task).roots
    assert not answer.error, answer.error
    (packet,) = answer.packets
    return packet


def delta_task(
    owner: Owner,
    packets: Sequence[pb.FisherPacket],
    models: Mapping[str, Sequence[float]],
    *,
    own: Mapping[str, Sequence[str]] | None = None,
    request_id: str = "q",
    **changes: Any,
) -> pb.UnlearnTask:
    """Ask an owner to add changes.

    Args:
        owner: the owner.
        packets: the changes.
        models: model -> coefficient of each packet; 0 for none.
        own: root that takes its own new weights -> the samples that it forgets.
        request_id: the request.
        **changes: of `delta_method`.
    """
    own = own or {}
    tasks = []
    for model, coefficients in models.items():
        digest = owner.store.record(model).digest
        task = pb.ModelTask(model_id=model, digest=digest)
        for place, coefficient in enumerate(coefficients):
            mine = model in own and packets[place].delta.before == digest
            if coefficient:
                task.shares.add(packet=place, coefficient=coefficient, own=mine)
        if model in own:
            root = samples_root(model, owner.store.root, own[model])
            task.samples.extend(root.samples)
            task.sample_salt = root.sample_salt
        tasks.append(task)
    return pb.UnlearnTask(
        request_id=request_id,
        method=delta_method(**changes).to_proto(),
        fishers=packets,
        models=tasks,
        created_us=1000,
        request_digest=DIGEST,
    )


class AnyNetworkOwner(RetrainingOwner):
    """`RetrainingOwner` with models of other networks, which it cannot train again."""

    networks: dict[str, Callable[[], nn.Module]]

    def network(self, record: ModelRecord) -> nn.Module:
        make = self.networks.get(record.id.partition("~")[0])
        return make() if make is not None else super().network(record)

    def add(
        self,
        model: str,
        make: Callable[[], nn.Module],
        labels: Sequence[str] = LABELS,
        trained_on: Sequence[str] = LABELS,
        start: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Add a model with the weights of a network, and return them.

        Without classes that it was trained on, it is known to have been trained on nothing.
        """
        self.networks = {**getattr(self, "networks", {}), model: make}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.networks))
            network = make()
        if start is not None:
            network.load_state_dict(start)
        weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        counts = dict.fromkeys(trained_on, SAMPLES["train"])
        self.store.add(
            ModelRecord(
                id=model,
                owner=self.name,
                architecture=architecture_fingerprint(weights),
                labels=tuple(labels),
                digest=weights_digest(weights),
                created_us=1,
                provenance=Provenance("points", counts),
            ),
            weights,
        )
        return weights
