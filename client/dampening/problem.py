"""The dampening problem: a request for models of one architecture and label space."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.client.dampening.comparison import Comparison, Own, own_fisher, read_inherited
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.tuning import DampeningStrength, FixedStrength, default_strength
from disinherit.client.owner.owner import Owner
from disinherit.client.store.structure import Structure
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher.diagonal import ClassFishers
from disinherit.common.fiun.unlearning import rows_end_at_bottom
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import MergeRule, Method, Reference
from disinherit.common.models.heads import Head
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class DampeningProblem:
    """What to dampen, where and how.

    Attributes:
        names: parameters in scope, in the network's order.
        aliases: each of them -> all names under which the weights have it.
        out_of_scope: parameters of the packet that the network does not have.
        not_covered: parameters of the network in the request's scope that the packet does not have.
        comparison: the merged Fisher of the data to forget, on the owner's device, and what the
            model's own is compared with.
        forgotten: indices of the forgotten classes that the model knows.
        heads: names of the weight and bias of each layer of the head; none if the packet has
            nothing of it.
        rows: rows of the head to select in; `None` for all.
        only_rows: whether nothing but such rows can be selected.
        taken_out: whether such rows are taken out of the head, whatever their Fisher information.
        pinned: what the method fixes, and the defaults of what it does not.
        merge: how the roots' Fishers were merged.
        kind: which classes the reference is taken over: `retain`, or `all`.
        least: how like the model's own Fisher the roots' has to be, from 0 to 1.
        sources: the roots whose Fisher `forget` is; the model itself in the place of a root that it
            was made of by unlearning, since it is that root without what was forgotten.
        clipped: whether `forget` is of gradients that were clipped.
        rescale: whether Fishers are compared whatever their scale.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]]
    out_of_scope: tuple[str, ...]
    not_covered: tuple[str, ...]
    comparison: Comparison
    forgotten: tuple[int, ...]
    heads: tuple[tuple[str, str | None], ...]
    rows: tuple[int, ...] | None
    only_rows: bool
    taken_out: bool
    pinned: FixedStrength
    merge: MergeRule
    kind: Reference
    least: float
    sources: tuple[str, ...]
    clipped: bool
    rescale: bool

    @property
    def forget(self) -> Mapping[str, Tensor]:
        """The merged Fisher of the data to forget, by name."""
        return self.comparison.forget.values

    @property
    def tunable(self) -> bool:
        """Whether something is left to tune, and can be weighed."""
        return self.dampens and not self.pinned.complete and bool(self.forgotten)

    @property
    def dampens(self) -> bool:
        """Whether anything is dampened, by comparing Fishers, and how strongly plays a part."""
        return not (self.only_rows and self.taken_out)

    @property
    def whole_rows(self) -> bool:
        """Whether Fishers of single classes are compared in rows other than their own."""
        return bool(self.forgotten) and self._own_rows is None

    @property
    def _own_rows(self) -> tuple[int, ...] | None:
        """The rows of the head that are looked at, where each is only compared for its own class.

        Where rows are taken out of the head, it does not matter what they hold.
        """
        return self.rows if len(self.forgotten) < 2 or self.taken_out else None

    def reference(
        self, record: ModelRecord, fishers: ClassFishers, parameters: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return F_ref: over the retained classes, or over all own training data (the paper's).

        Args:
            record: the model.
            fishers: its Fisher sums.
            parameters: its parameters in scope.

        Raises:
            FisherError: if there is nothing to take it from.
        """
        left_out = set(self.forgotten) if self.kind == "retain" else set()
        classes = [c for c in range(len(record.labels)) if c not in left_out]
        if not fishers.counts[classes].sum():
            # Nothing of its own to keep: the limit F_ref -> 0 of dampening is to clear what is
            # selected.  That is right for the forgotten classes' rows, and ruins everything else.
            if self.only_rows:
                return {name: torch.zeros_like(value) for name, value in parameters.items()}
            raise FisherError(
                f"Expected model {record.id!r} to be trained on something that is to be kept, to "
                f"compare with, but all its {int(fishers.counts.sum())} samples are of classes to "
                "forget. Select only in the head's rows of these classes, or take reference 'all'."
            )
        fisher = fishers.excluding(left_out, self._own_rows) if left_out else fishers.total()
        return {name: fisher.values[name].to(value.device) for name, value in parameters.items()}

    def is_root(self, line: Collection[str]) -> bool:
        """Whether a model is the root itself, or a version that unlearning made of it.

        Args:
            line: as in `scale`.
        """
        return set(self.sources) <= set(line)

    def scale(
        self,
        line: Collection[str],
        own: Own | None,
        reference: Mapping[str, Tensor],
        *,
        tuned: bool = False,
    ) -> float:
        """Return what the model's own Fisher is multiplied by to compare it with the roots'.

        It is 1 where nothing is compared.  A root's Fisher has its own scale, unless it was
        clipped, also in a version that unlearning made of the root.  Where only rows of forgotten
        classes can be selected, a model's own is never scaled up, which would spare them.

        Args:
            line: the model, and the versions that it was made of by unlearning only.
            own: what `own` returned of it.
            reference: what `reference` returned.
            tuned: whether the owner's data show what dampening does to what is kept.
        """
        itself = self.is_root(line) and not self.clipped
        if not self.rescale or itself or not self.dampens:
            return 1.0
        # Rows that are taken out of the head are compared with nothing.
        left_out = [name for pair in self.heads for name in pair if name] if self.taken_out else []
        spare = not tuned and not self.only_rows
        factor = self.comparison.without(left_out).scale(own, reference, spare=spare)
        # Where nothing but forgotten rows can be selected, there is nothing to spare.
        return min(1.0, factor) if self.only_rows else factor

    def inheritance(self, record: ModelRecord, own: Own | None) -> float | None:
        """Return how like the roots' Fisher is to the model's own of the forgotten classes.

        Only what can be selected counts.  It is `None` where the model has no samples of these
        classes itself.

        Args:
            record: the model.
            own: what `own` returned of it.

        Raises:
            FisherError: if it is less than the method asks for; the model is left as it is.
        """
        rows: dict[str, tuple[int, ...]] = {}
        if self.rows is not None and self.heads:
            rows = {name: self.rows for pair in self.heads for name in pair if name in self.names}
        score = self.comparison.score(own, rows)
        if score is not None and score < self.least:
            raise FisherError(
                f"Expected the Fisher information of the roots to be like that of model "
                f"{record.id!r} (similarity >= {self.least:g}), but it is {score:.3f}: what it "
                "knows of the classes is elsewhere. Make it a root, or retrain it."
            )
        return score

    def own(self, record: ModelRecord, fishers: ClassFishers) -> Own | None:
        """Return a model's own Fisher of the forgotten classes, merged as those of the roots are.

        It is `None` where the model has no samples of these classes itself.

        Args:
            record: the model.
            fishers: its Fisher sums.
        """
        return own_fisher(
            fishers, record.labels, self.forgotten, self.names, self.merge, self._own_rows
        )

    def report(self, strength: DampeningStrength, result: pb.ModelResult) -> None:
        """Write alpha, lambda and gauge into a result, unless they played no part."""
        if self.dampens:
            result.alpha, result.lam, result.gauge = strength.alpha, strength.lam, strength.gauge

    def under_all_names(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters as the weights have them: on the CPU, a tied one under every name."""
        return {
            alias: value.cpu() for name, value in parameters.items() for alias in self.aliases[name]
        }


def resolve_problem(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    packet: PackedFisher,
    method: Method,
    alike: PackedFisher | None = None,
) -> DampeningProblem:
    """Work out what a request means for a model.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.
        alike: the same of those of the classes only that the model was trained on itself, where
            these are not all.

    Raises:
        FisherError: if packet, method and model do not fit together.
        LabelError: if the packet's label space does not fit its head, or the model's own labels do
            not fit the model's.
        ScopeError: if the scope is the head, and the model has none.
        InputError: if a value of the method is out of range.
    """
    structure = find_structure(owner, record, network)
    fisher = _with_verified_head(record, packet, structure, method.scope)
    compared = None
    if alike is not None:
        compared = _with_verified_head(record, alike, structure, method.scope)
    aligned = fisher.aligned(record.labels)
    own = dict(network.named_parameters())
    names = tuple(name for name in own if name in aligned)
    out_of_scope = tuple(sorted(aligned.keys() - set(names)))
    _check_fits(record, packet, own, {name: aligned[name] for name in names}, out_of_scope)
    known = [name for name in packet.classes if name in record.labels]
    forgotten = tuple(class_indices(record.labels, known))
    head = [name for name in fisher.head if name in names]
    # The gauge is free only where softmax directly follows, and nothing else uses the weight.
    gauge_free = structure.head is not None and structure.head.gauge_free
    rows = forgotten if method.row_scoped and head and packet.classes else None
    only_rows = rows is not None and set(head) == set(names)
    heads = structure.head.names if head and structure.head is not None else ()
    first = {id(parameter): name for name, parameter in own.items()}
    aliases: dict[str, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        aliases.setdefault(first[id(parameter)], []).append(name)
    origins = {entry.model_id for entry in owner.store.made_by(record.id)}
    return DampeningProblem(
        names=names,
        aliases=aliases,
        out_of_scope=out_of_scope,
        not_covered=_not_covered(network, method.scope, structure.head, names),
        comparison=Comparison(
            read_inherited(fisher, record.labels, names, owner.device),
            None
            if compared is None
            else read_inherited(compared, record.labels, names, owner.device),
        ),
        forgotten=forgotten,
        heads=heads,
        rows=rows,
        only_rows=only_rows,
        taken_out=rows_end_at_bottom(names, heads, rows),
        pinned=FixedStrength(
            method.alpha,
            method.lam,
            method.gauge if gauge_free else 0.0,
            otherwise=default_strength(
                only_rows=only_rows,
                only_head=set(names) <= set(head),
                by_class=bool(packet.classes),
                repaired=bool(method.repair_steps),
            ),
        ),
        merge=method.merge,
        kind=method.reference,
        least=method.min_inheritance,
        sources=tuple(record.id if root in origins else root for root in packet.sources),
        clipped=packet.clip_norm > 0,
        rescale=method.rescale,
    )


def _with_verified_head(
    record: ModelRecord, fisher: PackedFisher, structure: Structure, scope: str
) -> PackedFisher:
    """Return what a packet holds, with the head it names only if that is the model's own, too.

    A layer of that name may be any other one in this model: then no row of it is a class.

    Raises:
        FisherError: if the model's head is another one.
        ScopeError: if the scope is the head and the model has none.
    """
    roots = ", ".join(fisher.sources) or "an unknown root"
    if is_head_scope(scope) and not fisher.head:
        raise FisherError(f"Expected a Fisher packet of a head, but that of {roots} names none.")
    if not any(name in fisher.values for name in fisher.head):
        return fisher
    if structure.head is None:
        if is_head_scope(scope):
            raise ScopeError(structure.reason)
        return fisher.without_head()
    if set(fisher.head) != set(structure.head.parameters):
        raise FisherError(
            f"Expected the head of model {record.id!r} to be that of {roots}, "
            f"{', '.join(fisher.head)}, but the model's head is {structure.head}. Unlearn in a "
            "scope without heads, or make the model a root, or retrain it."
        )
    return fisher


def _not_covered(
    network: nn.Module, scope: str, head: Head | None, covered: Sequence[str]
) -> tuple[str, ...]:
    """Return the parameters of a network that are in scope by themselves, but not covered."""
    try:
        own = resolve_scope(network, scope, head)
    except ScopeError:  # a glob that fits the roots alone
        return ()
    return tuple(sorted(set(own) - set(covered)))


def _check_fits(
    record: ModelRecord,
    packet: PackedFisher,
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Tensor],
    out_of_scope: Sequence[str],
) -> None:
    roots = ", ".join(packet.sources) or "an unknown root"
    if not forget:
        raise FisherError(
            f"Expected a Fisher packet for parameters of model {record.id!r}, but that of {roots} "
            f"is for {', '.join(out_of_scope) or 'none'}, which the model does not have."
        )
    for name, value in forget.items():
        if value.shape != parameters[name].shape:
            raise FisherError(
                f"Expected a Fisher of shape {list(parameters[name].shape)} for parameter {name!r} "
                f"as in model {record.id!r}, but that of {roots} has {list(value.shape)}. Unlearn "
                "in a scope that both have in common."
            )
