"""A campaign in this process: the deployment's coordinator, owners and messages."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import CampaignError, NotApplicableError
from disinherit.common.method import AUTO, Method
from disinherit.common.wire.remedies import remedy_word
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut
from disinherit.common.wire.samples import SALT_BYTES, SampleDigests, digest_samples
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.simulations.bench.cases.subjects import MethodCase, Weights
from disinherit.simulations.bench.methods.case_owner import (
    CaseOwner,
    graph_of,
    owners_of,
    samples_to_forget,
)
from disinherit.simulations.bench.methods.method import Unlearned

_REQUEST = "bench"
_SALT = "00" * SALT_BYTES


class CountingTransport:
    """A transport that counts the bytes of messages and answers.

    Args:
        transport: what carries them.

    Attributes:
        sent: owner -> bytes to and from it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sent: dict[str, int] = {}

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Carry messages, counting them and their answers."""
        for ask in asks:
            attached = sum(len(tensors) for tensors in ask.tensors.values())
            self._count(ask.owner, ask.task.ByteSize() + attached)
        for answer in self._transport.ask(asks, timeout):
            if answer.reply is not None:
                self._count(answer.ask.owner, answer.reply.ByteSize())
            yield answer

    def _count(self, owner: str, size: int) -> None:
        self.sent[owner] = self.sent.get(owner, 0) + size


def run_campaign(
    case: MethodCase, method: Method, *, all_roots: bool = False, release: ReleasePolicy = OPEN
) -> Unlearned:
    """Forget what a case is about with one campaign over temporary stores.

    Putting models into stores and registering summaries is set-up: in a deployment it was done when
    the models were trained.

    Args:
        case: the case.
        method: how to unlearn.
        all_roots: whether every descendant gets what all roots sent merged, not only what those
            that it comes from sent.
        release: conditions of every owner on what it lets out.

    Returns:
        The weights that the owners' stores hold in the end, with the state and the reason of models
        that have not forgotten; models that could not be unlearned in are left out, with the reason
        among what was chosen.

    Raises:
        CampaignError: if the owners cannot register, or no model could be unlearned in.
        NotApplicableError: if that is so since the root method asked for refuses the case.
    """
    started, computed = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        owners = owners_of(case, folder, release, curvature=method.root_method == "ekfac")
        transport = CountingTransport(DirectTransport(owners))
        store = CoordinatorStore(folder / "coordinator.db")
        try:
            for record, edges in graph_of(case, all_roots=all_roots):
                store.add_model(record, edges)
            coordinator = Coordinator(store, transport)
            errors = coordinator.register(list(owners), method.scope)
            if errors:
                raise CampaignError(f"Expected all owners to register, but: {errors}.")
            transport.sent.clear()
            setup_seconds = time.perf_counter() - started
            setup_cpu_seconds = time.process_time() - computed
            coordinator.submit(request_of(case, method, owners))
            result = coordinator.run(_REQUEST)
        finally:
            store.close()
        weights: dict[str, Weights] = {}
        chosen: dict[str, Any] = {}
        tune_seconds = 0.0
        for model, task in result.tasks.items():
            made = task.result
            if made is None:
                chosen[model] = task.reason
                continue
            # One that would not have helped, or have cost too much, was left as it was.
            version = task.successor.id if task.successor is not None else model
            with owners[case.subjects[model].owner]() as owner:
                weights[model] = owner.store.weights(version)
            tune_seconds += made.tune_seconds
            chosen[model] = {
                **(
                    {"alpha": made.alpha, "lambda": made.lam, "gauge": made.gauge}
                    if made.alpha
                    else {}
                ),
                "repair_steps": made.repair_steps,
                "inheritance": made.inheritance if made.HasField("inheritance") else None,
                "scale": made.scale,
                "remedy": remedy_word(made.remedy),
                "changes": {
                    one.root: [one.root_method, one.applied]
                    + ([one.measured] if one.HasField("measured") else [])
                    for one in made.deltas
                },
            }
            if task.state.unforgotten:
                chosen[model] |= {"state": str(task.state), "reason": task.reason}
    if not weights and method.root_method != AUTO:
        raise NotApplicableError("; ".join(str(chosen[root]) for root in case.roots))
    if not weights:
        raise CampaignError(f"Expected a model to be unlearned in, but none was: {chosen}.")
    return Unlearned(
        weights, dict(transport.sent), setup_seconds, setup_cpu_seconds, tune_seconds, chosen
    )


def request_of(
    case: MethodCase, method: Method, owners: Mapping[str, Callable[[], CaseOwner]]
) -> Request:
    """Return the request that a case is about: for classes, for samples, or for a client.

    Args:
        case: the case.
        method: how to unlearn.
        owners: owner name -> how to open it.
    """
    client = ""
    forget: dict[str, Sequence[str]] = {}
    samples: dict[str, SampleDigests] = {}
    if case.granularity == "client":
        (client,) = {case.subjects[root].owner for root in case.roots}
    elif case.by_class:
        forget = dict(case.roots)
    else:
        for root in case.roots:
            subject = case.subjects[root]
            with owners[subject.owner]() as owner:
                key = sample_key(owner.store.root)
            samples[root] = digest_samples(key, _SALT, samples_to_forget(subject))
    return Request(
        forget=forget,
        samples=samples,
        client=client,
        method=method,
        id=_REQUEST,
        # What a method costs is measured afterwards: no owner leaves a model as it is for that.
        roll_out=RollOut(max_retain_drop=100.0),
    )


def size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(value.numel() * value.element_size() for value in tensors)


def replayed(case: MethodCase) -> dict[str, int]:
    """Return the traffic of deriving all affected models again.

    Every owner receives the weights of a model's parents and sends what it made of them to the
    owners of its children, through the coordinator: parents that it holds itself cost nothing.
    """
    sent = {subject.owner: 0 for subject in case.subjects.values()}
    for subject in case.subjects.values():
        for parent in subject.parents:
            known = case.subjects.get(parent)
            if known is None or known.owner != subject.owner:
                weights = case.unaffected[parent] if known is None else known.original
                sent[subject.owner] += size(weights.values())
                if known is not None:
                    sent[known.owner] += size(weights.values())
    return sent


def broadcast(case: MethodCase, packets: dict[str, Weights]) -> dict[str, int]:
    """Return the traffic of sending what each root found to the coordinator, and on to the owners.

    An owner receives one packet for each of the roots upstream of its models, its own not.
    """
    sent = {subject.owner: 0 for subject in case.subjects.values()}
    for root, packet in packets.items():
        home = case.subjects[root].owner
        sent[home] += size(packet.values())
        owners = {
            subject.owner for name, subject in case.subjects.items() if root in case.upstream(name)
        }
        for owner in owners - {home}:
            sent[owner] += size(packet.values())
    return sent
