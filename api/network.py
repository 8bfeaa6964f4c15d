"""Network of models in one process, and how all that inherited a class forget it.

It plans, collects, merges, dampens and judges with the functions of coordinator and owner.  The
versions are kept in a temporary folder for as long as the network is used.
"""

import copy
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.summaries import class_fishers
from disinherit.client.owner.owner import load_network
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import GraphError, InputError, LabelError, RequestError, ScopeError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
    check_id,
)
from disinherit.common.graph.rules import check_parents
from disinherit.common.method import Method
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SALT_BYTES, SampleDigests, digest_samples
from disinherit.describing import describe_model
from disinherit.loaders import count, named_samples
from disinherit.local_pass import forget_locally
from disinherit.members import LoaderOwner, Member
from disinherit.outcome_table import ForgetResult, outcome_of, reservations
from disinherit.server.planning.plan import plan
from disinherit.server.states import Task, TaskState

_OWNER = "network"
_LONGEST_NAME = 64


class Network:
    """Models that inherit from each other, with the data that each was trained on directly.

    Args:
        labels: class names in the order of the models' logits; a model may have its own.
        scope: parameters that may change: `head`, `all`, or parameter-name globs separated by
            commas. Fisher information is kept of these.
        device: where to compute; by default where the first model is.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> _ = torch.manual_seed(0)
        >>> targets = torch.arange(2).repeat(20)
        >>> loader = DataLoader(TensorDataset(torch.eye(2)[targets], targets), batch_size=8)
        >>> model = nn.Linear(2, 2)
        >>> network = Network(labels=["cat", "dog"])
        >>> network.add("base", model, loader)
        >>> result = network.forget("cat")
        >>> result["base"].state, bool((model(torch.eye(2)).argmax(1) == 1).all())
        ('verified', True)
    """

    def __init__(
        self,
        labels: Iterable[str] = (),
        *,
        scope: str = "head",
        device: torch.device | str | None = None,
    ) -> None:
        self._labels = tuple(labels)
        self._method = Method(scope=scope)
        self._device = None if device is None else torch.device(device)
        self._members: dict[str, Member] = {}
        self._graph = InheritanceGraph()
        self._asked = 0
        folder = Path(tempfile.mkdtemp(prefix="disinherit-"))
        store = ModelStore(folder, _OWNER)
        self._owner = LoaderOwner(store, self._members)
        if self._device is not None:
            self._owner.device = self._device
        weakref.finalize(self, _remove, store, folder)

    @property
    def graph(self) -> InheritanceGraph:
        """All versions of all models, and what was derived from what."""
        return self._graph

    def add(
        self,
        name: str,
        model: nn.Module,
        loader: Iterable[object],
        *,
        parents: Sequence[str] | Mapping[str, Mapping[str, str]] = (),
        labels: Iterable[str] | None = None,
        evaluate: Iterable[object] | None = None,
        tune: Iterable[object] | None = None,
    ) -> None:
        """Add a trained model, and compute its Fisher information per class from its data.

        Args:
            name: what to call it.
            model: the module; it returns logits.
            loader: what it was trained on *directly*, not what its parents were trained on: a
                DataLoader, or a list of batches of inputs and class indices.
            parents: models that it was derived from; where a class has another name in the parent,
                a mapping: parent -> the parent's class name -> its own.
            labels: its own class names, if they are not those of the network.
            evaluate: held-out data, to measure what it recognises before and after.
            tune: other held-out data, to choose how strongly to dampen.

        Raises:
            GraphError: if the name is taken or malformed, or a parent is unknown.
            DataError: if a loader yields nothing, or something other than class indices.
            LabelError: if there are more or fewer labels than logits.
            FisherError: if a batch is no pair, or the model does not return logits.
            ScopeError: if the model has no parameters in scope.
        """
        self._check_name(name, parents)
        names = self._labels if labels is None else tuple(labels)
        trained = count(loader, f"the data of model {name!r}")
        held_out = {
            what: count(data, f"the {what} data of model {name!r}").samples
            for what, data in (("evaluation", evaluate), ("tuning", tune))
            if data is not None
        }
        for found in (trained.samples, *held_out.values()):
            if len(found) > len(names):
                raise LabelError(
                    f"Expected a label for each class of model {name!r}, but its data has class "
                    f"index {len(found) - 1} and there are {len(names)} labels: {', '.join(names)}."
                )
        counts = {n: found for n, found in zip(names, trained.samples, strict=False) if found}
        record = describe_model(
            name,
            model,
            owner=_OWNER,
            labels=names,
            created_us=self._next_us(),
            provenance=Provenance("loader", counts),
            inputs=trained.inputs,
        )
        edges = _edges(name, parents)
        check_parents(record, edges, (), self._graph.model)
        classes = {what: sum(map(bool, found)) for what, found in held_out.items()}
        member = Member(model, loader, evaluate, tune, counts, classes, record)
        if not self._members and self._device is None:
            self._owner.device = next((p.device for p in model.parameters()), self._owner.device)
        self._members[name] = member
        try:
            member.record = self._register(record, model)
        except BaseException:
            del self._members[name]
            raise
        self._graph.add(member.record, edges)

    def forget(
        self,
        classes: str | Sequence[str] | None = None,
        *,
        samples: object = None,
        root: str | Sequence[str] | None = None,
        method: Method | None = None,
        inplace: bool = True,
    ) -> ForgetResult:
        """Make all models that learned or inherited something forget it.

        Args:
            classes: names of the classes to forget.
            samples: training samples to forget in the place of classes: indices into the data set
                of the root's DataLoader, or a data set or batches of the very samples.
            root: models that were trained directly on it; by default all that were.
            method: how to unlearn; by default in the network's scope.
            inplace: whether the modules that were added change; else the result has copies that
                did.

        Returns:
            What became of every affected model. One that did not forget is left as it was.

        Raises:
            RequestError: if there is nothing to forget, nothing would be left, or the method is for
                another scope.
            LabelError: if no model has a class.
            GraphError: if a root is unknown.
            DataError: if samples are not among the root's data.
            InputError: if a model was changed since it was added.
        """
        method = self._method if method is None else method
        if method.scope != self._method.scope:
            raise RequestError(
                f"Expected a method for scope {self._method.scope!r}, of which Fisher information "
                f"was kept, but got {method.scope!r}. Make the network with that scope."
            )
        if (classes is None) == (samples is None):
            got = "none" if classes is None else "both"
            raise RequestError(f"Expected either classes or samples to forget, but got {got}.")
        roots = self._roots(root)
        request = Request(
            forget={} if classes is None else self._classes(_listed(classes), roots),
            samples={} if samples is None else self._samples(samples, roots),
            method=method,
            id=f"forget-{self._asked + 1}",
        )
        message = request.to_proto()
        planned = plan(self._graph, message)
        self._check_unchanged(planned.affected)
        self._asked += 1
        tasks, made = forget_locally(self._graph, self._owner, message, planned)
        versions = {one.record.id: name for name, one in self._members.items()}
        outcomes = []
        models: dict[str, nn.Module] = {}
        for version in planned.affected:
            if version not in versions:  # another version took its place
                continue
            name = versions[version]
            task, successor = tasks[version], made.get(version)
            models[name] = self._members[name].module
            if successor is not None:
                task, models[name] = self._take(request.id, name, task, successor, inplace)
            elif not inplace:
                models[name] = copy.deepcopy(models[name])
            tasks[version] = task
            outcomes.append(outcome_of(self._members[name], name, task, request))
        return ForgetResult(
            _what(request),
            tuple(outcomes),
            tuple(reservations(request, outcomes, tasks, planned.notes)),
            models,
        )

    def _take(
        self, request_id: str, name: str, task: Task, successor: ModelRecord, inplace: bool
    ) -> tuple[Task, nn.Module]:
        """Give a module its new weights, or put back a version that did not forget."""
        member, store = self._members[name], self._owner.store
        record, module = member.record, member.module
        if task.state is not TaskState.APPLIED:
            store.roll_back(request_id, record.id, record.digest)
            reason = task.reason.replace("roll it back, and ", "it was put back; ")
            return replace(task, reason=reason), module if inplace else copy.deepcopy(module)
        if not inplace:
            module = copy.deepcopy(module)
        module.load_state_dict(store.weights(successor.id))
        if weights_digest(module.state_dict()) != successor.digest:
            return replace(
                task, state=TaskState.FAILED, reason="its weights are not as computed"
            ), module
        if not inplace:
            store.roll_back(request_id, record.id, record.digest)
        else:
            store.destroy(request_id, {record.id: record.digest})
            self._graph.add(
                successor, [Inheritance(record.id, successor.id, InheritanceKind.UNLEARNED)]
            )
            self._graph.replace(replace(record, status=ModelStatus.SUPERSEDED))
            member.record = successor
        return replace(task, state=TaskState.VERIFIED, reason=""), module

    def _check_name(self, name: str, parents: Collection[str]) -> None:
        check_id(name, "model name")
        if "~" in name or len(name) > _LONGEST_NAME:
            raise GraphError(
                f"Expected a model name of at most {_LONGEST_NAME} characters without '~', but got "
                f"{name!r}."
            )
        if name in self._members:
            raise GraphError(
                f"Expected a new name, but a model {name!r} was added before. Give every version "
                "its own name."
            )
        for parent in parents:
            self._member(parent, "a parent")

    def _member(self, name: str, what: str) -> Member:
        if name not in self._members:
            known = ", ".join(self._members) or "none yet"
            raise GraphError(
                f"Expected the name of {what} that was added before ({known}), but got {name!r}."
            )
        return self._members[name]

    def _next_us(self) -> int:
        """Return a time that is later than that of every version."""
        latest = max((record.created_us for record in self._graph.models()), default=0)
        return max(time.time_ns() // 1000, latest + 1)

    def _register(self, record: ModelRecord, model: nn.Module) -> ModelRecord:
        """Compute and keep the Fisher information of a model, and return its record."""
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        network = load_network(self._owner, record, weights)
        structure = find_structure(self._owner, record, network)
        scope = self._method.scope
        if is_head_scope(scope) and structure.head is None:
            raise ScopeError(structure.reason)
        names = resolve_scope(network, scope, structure.head)
        loader = self._owner.training_data(record)
        fishers = class_fishers(self._owner, record, network, names, loader)
        record = self._owner.store.add(record, weights, fishers, scope)
        self._owner.store.set_structure(record.id, structure)
        return record

    def _roots(self, root: str | Sequence[str] | None) -> list[str] | None:
        if root is None:
            return None
        roots = _listed(root)
        for name in roots:
            self._member(name, "a root")
        return roots

    def _classes(self, classes: Sequence[str], roots: list[str] | None) -> dict[str, list[str]]:
        """Return root -> the classes that it was trained on directly."""
        forget: dict[str, list[str]] = {}
        for label in classes:
            trained = [name for name, one in self._members.items() if label in one.trained]
            if not trained:
                known = dict.fromkeys(n for one in self._members.values() for n in one.trained)
                raise LabelError(
                    f"Expected a class that a model was trained on ({', '.join(known) or 'none'}), "
                    f"but got {label!r}."
                )
            for name in trained if roots is None else roots:
                if name not in trained:
                    raise RequestError(
                        f"Expected a root that was trained on {label!r} directly "
                        f"({', '.join(trained)}), but got {name!r}."
                    )
                forget.setdefault(name, []).append(label)
        return forget

    def _samples(self, samples: object, roots: list[str] | None) -> dict[str, SampleDigests]:
        """Return root -> the samples to forget there."""
        if roots is None and len(self._members) == 1:
            roots = list(self._members)
        if roots is None or len(roots) != 1:
            raise RequestError(
                "Expected one root with samples=, the model that was trained on them, but got "
                f"{'none' if not roots else ', '.join(roots)}."
            )
        ids = named_samples(samples, self._members[roots[0]].loader, roots[0])
        key = sample_key(self._owner.store.root)
        return {roots[0]: digest_samples(key, secrets.token_hex(SALT_BYTES), ids)}

    def _check_unchanged(self, versions: Iterable[str]) -> None:
        affected = set(versions)
        for name, member in self._members.items():
            if member.record.id not in affected:
                continue
            if weights_digest(member.module.state_dict()) != member.record.digest:
                raise InputError(
                    f"Expected model {name!r} as it was added, but its weights are others now. Add "
                    f"what it has become under another name, with parents=[{name!r}]."
                )


def _edges(
    name: str, parents: Sequence[str] | Mapping[str, Mapping[str, str]]
) -> list[Inheritance]:
    """Return the edges from parents: an average of several, or the transfer from one."""
    kind = InheritanceKind.TRANSFER if len(parents) == 1 else InheritanceKind.DISTRIBUTED
    named = parents if isinstance(parents, Mapping) else {}
    return [
        Inheritance(parent, name, kind, 1 / len(parents), named.get(parent, {}))
        for parent in parents
    ]


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _what(request: Request) -> str:
    parts = [f"{', '.join(names)} at {root}" for root, names in request.forget.items()]
    parts += [f"{len(named.digests)} samples at {root}" for root, named in request.samples.items()]
    return "; ".join(parts)


def _remove(store: ModelStore, folder: Path) -> None:
    store.close()
    shutil.rmtree(folder, ignore_errors=True)
