"""Network of models in one process, and how all that inherited a class forget it.

It plans, collects, merges, dampens and judges with the functions of coordinator and owner.  The
versions, also those before a request, are kept in a temporary folder for as long as the network is
used: so a request can be sent again, by another method where one model has not forgotten.
"""

import copy
import shutil
import tempfile
import time
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from disinherit.client.privacy.remaining import cleared_classes
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import GraphError, InputError, LabelError
from disinherit.common.graph.graph import InheritanceGraph, reach
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.common.graph.rules import check_parents
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.describing import describe_model
from disinherit.local.arguments import (
    check_module,
    check_name,
    class_names,
    edges_to,
    renamed_classes,
    usable_device,
)
from disinherit.local.asked import check_method, describe, find_member, make_request
from disinherit.local.held_out import check_held_out, check_inputs
from disinherit.local.loaders import count
from disinherit.local.local_pass import forget_locally, put_back, take
from disinherit.local.members import LoaderOwner, Member, Retrain
from disinherit.local.outcome_table import ForgetResult, outcome_of, reservations
from disinherit.server.planning.notes import not_reached_notes
from disinherit.server.planning.plan import plan

_OWNER = "network"


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
        self._labels = class_names(labels)
        self._method = Method(scope=scope)
        self._device = usable_device(device)
        self._members: dict[str, Member] = {}
        self._graph = InheritanceGraph()
        self._asked = 0
        folder = Path(tempfile.mkdtemp(prefix="disinherit-"))
        store = ModelStore(folder, _OWNER)
        self._owner = LoaderOwner(store, self._members)
        if self._device is not None:
            self._owner.device = self._device
        weakref.finalize(self, _remove, store, folder)

    def __repr__(self) -> str:
        return f"Network({len(self._members)} models, scope {self._method.scope!r})"

    @property
    def graph(self) -> InheritanceGraph:
        """All versions of all models, and what was derived from what."""
        return self._graph

    @torch.inference_mode(False)
    def add(
        self,
        name: str,
        model: nn.Module,
        loader: Iterable[object],
        *,
        parents: str | Sequence[str] | Mapping[str, Mapping[str, str]] = (),
        labels: Iterable[str] | None = None,
        evaluate: Iterable[object] | None = None,
        tune: Iterable[object] | None = None,
        retrain: Retrain | None = None,
    ) -> None:
        """Add a trained model, and compute its Fisher information per class from its data.

        Args:
            name: what to call it.
            model: the module; it returns logits.
            loader: what it was trained on *directly*, not what its parents were trained on: a
                DataLoader, or a list of batches of inputs and class indices. It is iterated twice,
                and begun once more unless it is a list or its data set has indices.
            parents: models that it was derived from; where a class has another name in the parent,
                a mapping: parent -> the parent's class name -> its own.
            labels: its own class names, if they are not those of the network.
            evaluate: held-out data, to measure what it recognises before and after. It is iterated
                once, and begun again likewise. Refused are the loaders of its own or its ancestors'
                training data, and others of the same samples, where PyTorch's data sets, subsets
                and samplers show that they are; copies, and data that was loaded again, cannot be
                seen.
            tune: other held-out data, to choose how strongly to dampen; likewise.
            retrain: trains the model again exactly as it was trained, from the same start and with
                the same seeds, and returns its state_dict: called with batches of the loader
                without some samples, or with `None` for the weights that training started from.
                With it, a root forgets samples exactly.

        Raises:
            GraphError: if the name is taken or malformed, or a parent is unknown.
            DataError: if a loader yields nothing, or nothing the second time, or something other
                than class indices; or if held-out data is not held out, or not as the model takes.
            InputError: if the model is a wrapper for several devices, or cannot be changed.
            LabelError: if there are more or fewer labels than logits.
            FisherError: if a batch is no pair, or the model does not return logits.
            ScopeError: if the model has no parameters in scope.
        """
        self._check_new(name, model)
        renamed = renamed_classes(parents)
        for parent in renamed:
            find_member(self._members, parent, "a parent")
        names = self._labels if labels is None else class_names(labels)
        trained = count(loader, _named(name))
        held_out = {
            what: data
            for what, data in (("evaluation", evaluate), ("tuning", tune))
            if data is not None
        }
        known = {what: count(data, _named(name, what)) for what, data in held_out.items()}
        for found in (trained, *known.values()):
            if len(found.samples) > len(names):
                listed = f"{len(names)} labels: {', '.join(names)}" if names else "no labels"
                raise LabelError(
                    f"Expected a label for each class of model {name!r}, but its data has class "
                    f"index {len(found.samples) - 1} and there are {listed}."
                )
        seen = {_named(name): loader}
        for other in self._with_ancestors(renamed):
            seen[_named(other)] = self._members[other].loader
        for what, data in held_out.items():
            check_held_out(data, _named(name, what), seen)
            seen[_named(name, what)] = data
        counts = {n: found for n, found in zip(names, trained.samples, strict=False) if found}
        record = describe_model(
            name,
            model,
            owner=_OWNER,
            labels=names,
            created_us=self._next_us(),
            provenance=Provenance("loader", counts),
            inputs=trained.inputs[0],
        )
        for what, found in known.items():
            check_inputs(model, found.inputs, trained.inputs[0], len(names), _named(name, what))
        edges = edges_to(name, renamed)
        check_parents(record, edges, (), self._graph.model)
        classes = {what: sum(map(bool, found.samples)) for what, found in known.items()}
        member = Member(model, loader, evaluate, tune, retrain, counts, classes, record)
        if not self._members and self._device is None:
            self._owner.device = next((p.device for p in model.parameters()), self._owner.device)
        self._members[name] = member
        try:
            scope = self._method.scope
            member.record = self._owner.register(record, model, trained.inputs[0], scope)
        except BaseException:
            del self._members[name]
            raise
        self._graph.add(member.record, edges)

    @torch.inference_mode(False)
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

        Classes are forgotten by dampening.  For samples, the root is unlearned by the best method
        that can be done there (`replayed` if it was added with `retrain`), and all models that
        descend from it inherit the change.

        A request iterates each loader of an affected model at most five times; for samples, which
        are looked up by value, the root's training data at most 20 times, and six more for
        each affected model, beside what `retrain` iterates, and its tuning data at most 20 times,
        since methods for the root are tried.  Earlier requests do not add to that.
        Only where memory runs out is more iterated.

        Args:
            classes: names of the classes to forget.
            samples: training samples to forget in the place of classes: indices into the data set
                of the root's DataLoader, or a data set or batches of the very samples. A model
                below the root that was trained on some of them itself is a root of these, too.
            root: models that were trained directly on it; by default all that were.
            method: how to unlearn; by default in the network's scope.
            inplace: whether the modules that were added change; else the result has copies that
                did.

        Returns:
            What became of every affected model. One that did not forget is left as it was, and so
            is what inherited its change.

        Raises:
            RequestError: if there is nothing to forget, nothing would be left, or the method is for
                another scope.
            LabelError: if no model has a class.
            GraphError: if a root is unknown.
            DataError: if samples are not among the root's data.
            InputError: if a model was changed since it was added.
        """
        method = self._method if method is None else method
        check_method(method, self._method.scope)
        members, store = self._members, self._owner.store
        id = f"forget-{self._asked + 1}"
        asked = make_request(members, self._graph, store.root, classes, samples, root, method, id)
        request = asked.request
        message = request.to_proto()
        cleared = {}
        for name in request.forget:
            record = members[name].record
            gone = cleared_classes(self._owner, record)
            cleared[name] = {record.labels[c] for c in gone}
        planned = plan(self._graph, message, cleared=cleared)
        affected = set(planned.affected)
        self._check_unchanged(affected)
        self._asked += 1
        before = {name: one.record for name, one in self._members.items()}
        try:
            tasks, made = forget_locally(self._graph, self._owner, message, planned)
            outcomes = []
            models: dict[str, nn.Module] = {}
            for name, record in before.items():  # parents first, as they were added
                version = record.id
                if version not in affected:
                    continue
                task, successor = tasks[version], made.get(version)
                member = self._members[name]
                models[name] = member.module
                if successor is not None:
                    task, models[name] = take(store, request.id, member, task, successor, inplace)
                elif not inplace:
                    models[name] = copy.deepcopy(models[name])
                tasks[version] = task
                outcomes.append(outcome_of(member, name, task, request))
        except BaseException:
            for name, record in before.items():
                if record.id in affected:
                    put_back(store, request.id, self._members[name], record)
            raise
        for name, record in before.items():
            self._record(record, self._members[name].record)
        # The outcomes have these reasons.
        reasons = {note.text for note in not_reached_notes(planned.not_reached)}
        notes = [*asked.notes, *(note for note in planned.notes if note not in reasons)]
        return ForgetResult(
            describe(request),
            tuple(outcomes),
            tuple(reservations(request, outcomes, tasks, notes)),
            models,
        )

    def _record(self, record: ModelRecord, successor: ModelRecord) -> None:
        """Add to the graph what a version became, if it became another."""
        if successor != record:
            edge = Inheritance(record.id, successor.id, InheritanceKind.UNLEARNED)
            self._graph.add(successor, [edge])
            self._graph.replace(replace(record, status=ModelStatus.SUPERSEDED))

    def _check_new(self, name: str, model: nn.Module) -> None:
        check_name(name)
        check_module(name, model)
        if name in self._members:
            raise GraphError(
                f"Expected a new name, but a model {name!r} was added before. Give every version "
                "its own name."
            )
        for other, member in self._members.items():
            if member.module is model:
                raise GraphError(
                    f"Expected a module of its own for model {name!r}, but got that of {other!r}. "
                    "Add copy.deepcopy(module), taken before it was trained further."
                )

    def _with_ancestors(self, names: Iterable[str]) -> list[str]:
        """Return models and all that they inherit from, in the order in which they were added."""
        found = reach(names, lambda id: (edge.parent for edge in self._graph.parents(id)))
        return [name for name in self._members if name in found]

    def _next_us(self) -> int:
        """Return a time that is later than that of every version."""
        latest = max((record.created_us for record in self._graph.models()), default=0)
        return max(time.time_ns() // 1000, latest + 1)

    def _check_unchanged(self, affected: Collection[str]) -> None:
        for name, member in self._members.items():
            if member.record.id not in affected:
                continue
            if weights_digest(member.module.state_dict()) != member.record.digest:
                raise InputError(
                    f"Expected model {name!r} as it was added, but its weights are others now. Add "
                    f"what it has become under another name, with parents=[{name!r}]."
                )


def _named(model: str, source: str = "") -> str:
    """Return what training data of a model, or data of another source, is called in an error."""
    return f"the {source} data of model {model!r}" if source else f"the data of model {model!r}"


def _remove(store: ModelStore, folder: Path) -> None:
    store.close()
    shutil.rmtree(folder, ignore_errors=True)
