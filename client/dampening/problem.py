"""The dampening problem: a request for models of one architecture and label space."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from disinherit.client.dampening.comparison import Comparison, Own, own_fisher, read_inherited
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.tuning import DampeningStrength, FixedStrength, default_strength
from disinherit.client.owner.owner import Owner
from disinherit.client.store.structure import Structure
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fiun.unlearning import is_lowest, rows_end_at_bottom
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import MergeRule, Method, Reference
from disinherit.common.models.heads import Head
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope, split_scope
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb

_NAMED_GLOBS = 3
"""Most globs that an error proposes as a scope."""


@dataclass(frozen=True, slots=True, eq=False)
class DampeningProblem:
    """Parameters, Fisher information and strength of a dampening.

    Attributes:
        names: parameters in scope, in the network's order.
        aliases: parameter -> all its names in the weights.
        out_of_scope: parameters of the packet that the network does not have.
        not_covered: parameters of the network in the request's scope that the packet does not have.
        tied: names outside of the request's scope of tied parameters in `names`.
        comparison: merged Fisher of the forget set, on the owner's device, and the Fisher for
            comparison with the model's own.
        forgotten: indices of the forgotten classes in the model.
        heads: names of weight and bias of each layer of the head; empty if the packet has none.
        rows: rows of the head that can be selected; `None` for all.
        only_rows: whether only these rows can be selected.
        taken_out: whether these rows are taken out of the head, independent of their Fisher.
        pinned: strengths fixed by the method, and defaults of the others.
        merge: merge rule of the roots' Fishers.
        kind: classes of the reference: `retain`, or `all`.
        least: least inheritance score, from 0 to 1.
        sources: roots of the Fisher `forget`.  If unlearning made the model from a root, the model
            itself replaces it, since it is that root without the forgotten data.
        clipped: whether `forget` is of clipped gradients.
        rescale: whether Fishers are rescaled before they are compared.
        gauge_free: whether the logits are linear in the rows of the head alone.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]]
    out_of_scope: tuple[str, ...]
    not_covered: tuple[str, ...]
    tied: tuple[str, ...]
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
    gauge_free: bool

    @property
    def forget(self) -> Mapping[str, Tensor]:
        """Parameter name -> merged Fisher of the forget set."""
        return self.comparison.forget.values

    @property
    def tunable(self) -> bool:
        """Whether a strength is open, and forgetting can be measured."""
        return self.dampens and not self.pinned.complete and bool(self.forgotten)

    @property
    def dampens(self) -> bool:
        """Whether parameters are dampened by comparing Fishers, so that the strength matters."""
        return not (self.only_rows and self.taken_out)

    @property
    def whole_rows(self) -> bool:
        """Whether Fishers of single classes are compared in rows of other classes."""
        return bool(self.forgotten) and self._own_rows is None

    @property
    def _own_rows(self) -> tuple[int, ...] | None:
        """Rows of the head that are compared for their own class only; `None` for all.

        The values of rows that are taken out of the head do not matter.
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
            FisherError: if the reference would be empty.
        """
        left_out = set(self.forgotten) if self.kind == "retain" else set()
        classes = [c for c in range(len(record.labels)) if c not in left_out]
        if not fishers.counts[classes].sum():
            # No retained samples: for F_ref -> 0 dampening clears the selected values.  That is
            # right for rows of forgotten classes, and destroys other parameters.
            if self.only_rows:
                return {name: torch.zeros_like(value) for name, value in parameters.items()}
            raise FisherError(
                f"Expected model {record.id!r} to have samples of retained classes as reference, "
                f"but all its {int(fishers.counts.sum())} samples are of forgotten classes. Select "
                "only in the head's rows of these classes, or take reference 'all'."
            )
        fisher = fishers.excluding(left_out, self._own_rows) if left_out else fishers.total()
        return {name: fisher.values[name].to(value.device) for name, value in parameters.items()}

    def is_root(self, line: Collection[str]) -> bool:
        """Whether a model is the root itself, or a version that unlearning made from it.

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
        """Return the factor of the model's own Fisher in comparisons with the roots'.

        It is 1 if nothing is compared, and for a root and its successors by unlearning, unless the
        Fisher was clipped.  If only rows of forgotten classes can be selected, the factor is at
        most 1, since a larger one would protect these rows.

        Args:
            line: the model and its predecessors by unlearning only.
            own: result of `own`.
            reference: result of `reference`.
            tuned: whether the owner's data show the damage to retained classes.
        """
        itself = self.is_root(line) and not self.clipped
        if not self.rescale or itself or not self.dampens:
            return 1.0
        # Rows that are taken out of the head are not compared.
        left_out = [name for pair in self.heads for name in pair if name] if self.taken_out else []
        spare = not tuned and not self.only_rows
        factor = self.comparison.without(left_out).scale(own, reference, spare=spare)
        # If only forgotten rows can be selected, none must be protected.
        return min(1.0, factor) if self.only_rows else factor

    def inheritance(self, record: ModelRecord, own: Own | None) -> float | None:
        """Return the inheritance score of the model, our own measure of similarity.

        It compares parameters and rows that can be selected.  It is `None` if the model has no
        samples of the forgotten classes.

        Args:
            record: the model.
            own: result of `own`.

        Raises:
            FisherError: if the score is below the least one of the method.
        """
        rows: dict[str, tuple[int, ...]] = {}
        if self.rows is not None and self.heads:
            rows = {name: self.rows for pair in self.heads for name in pair if name in self.names}
        score = self.comparison.score(own, rows)
        if score is not None and score < self.least:
            raise FisherError(
                f"Expected the Fisher information of the roots to be like that of model "
                f"{record.id!r} (similarity >= {self.least:g}), but it is {score:.3f}: what it "
                "knows of the classes is in other parameters. Make it a root, or retrain it."
            )
        return score

    def own(self, record: ModelRecord, fishers: ClassFishers) -> Own | None:
        """Return a model's own Fisher of the forgotten classes, merged like that of the roots.

        It is `None` if the model has no samples of these classes.

        Args:
            record: the model.
            fishers: its Fisher sums.
        """
        return own_fisher(
            fishers, record.labels, self.forgotten, self.names, self.merge, self._own_rows
        )

    def doubt(self, classes: int, cleared: Collection[int]) -> str:
        """Return why rows at the bottom of the head may not be lowest; `""` if they are.

        Args:
            classes: number of rows of the head.
            cleared: rows of classes that were forgotten before, which are put there again.
        """
        if not rows_end_at_bottom(self.names, self.heads, self.rows or ()):
            return ""
        gone = {*cleared, *(self.rows or () if self.taken_out else ())}
        if not gone:
            return ""
        if not self.gauge_free:
            return (
                "its logits are not linear in the rows of its head alone, so that a row taken out "
                "need not be the lowest"
            )
        if not is_lowest(self.heads, classes - len(gone)):
            return (
                "its head has no bias and one class would be kept, so that a row taken out is the "
                "lowest for non-negative features only"
            )
        return ""

    def report(self, strength: DampeningStrength, result: pb.ModelResult) -> None:
        """Write alpha, lambda and gauge into a result, if they mattered."""
        if self.dampens:
            result.alpha, result.lam, result.gauge = strength.alpha, strength.lam, strength.gauge

    def under_all_names(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters on the CPU, tied ones under all their names."""
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
    """Return the dampening problem of a request for a model.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.
        alike: the merged Fisher of the forgotten classes that the model was trained on itself, if
            these are not all.

    Raises:
        FisherError: if packet, method and model do not fit together.
        LabelError: if the label space of the packet or of the model does not fit its head.
        ScopeError: if the scope is the head, and the model has none; or if rows are to be taken out
            of a head whose weight is used in another layer, too.
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
    # The gauge is free only if softmax follows directly and the weight has no other use.
    gauge_free = structure.head is not None and structure.head.gauge_free
    rows = forgotten if method.row_scoped and head and packet.classes else None
    only_rows = rows is not None and set(head) == set(names)
    heads = structure.head.names if head and structure.head is not None else ()
    taken_out = rows_end_at_bottom(names, heads, rows)
    if taken_out and structure.head is not None and not gauge_free:
        _check_untied(record, network, structure.head, structure.ties)
    origins = {entry.model_id for entry in owner.store.made_by(record.id)}
    return DampeningProblem(
        names=names,
        aliases={name: structure.names_of(name) for name in own},
        out_of_scope=out_of_scope,
        not_covered=_not_covered(network, method.scope, structure.head, names),
        tied=_tied(method.scope, structure, names),
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
        taken_out=taken_out,
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
        gauge_free=gauge_free,
    )


def _with_verified_head(
    record: ModelRecord, fisher: PackedFisher, structure: Structure, scope: str
) -> PackedFisher:
    """Return a packet with the verified head of the model, or without a head.

    A layer of the same name may be another layer in this model, with rows that are not classes.

    Raises:
        FisherError: if the model has another head.
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


def _check_untied(
    record: ModelRecord, network: nn.Module, head: Head, ties: Sequence[Sequence[str]]
) -> None:
    """Check that rows taken out of the head are not used elsewhere, such as in an embedding.

    Raises:
        ScopeError: if a parameter of the head is tied to that of another layer.
    """
    own = _own_names(head)
    shared = [names for names in ties if own & set(names) and not own >= set(names)]
    if not shared:
        return
    tied = [name for names in shared for name in names]
    inside, outside = (
        next(name for name in shared[0] if (name in own) is its) for its in (True, False)
    )
    others = []
    for name, _ in network.named_parameters():
        if name not in head.parameters:
            module = f"{name.rpartition('.')[0]}.*"
            wide = "." not in name or any(fnmatchcase(other, module) for other in tied)
            others.append(name if wide else module)
    few = ",".join([*dict.fromkeys(others)][:_NAMED_GLOBS])
    scope = f"Give a scope without it, such as {few!r}, or give" if few else "Give"
    raise ScopeError(
        f"Expected the head of model {record.id!r} to have weights of its own, but {inside} is "
        f"{outside}, too, so that taking a row out changes what other classes are told by. {scope} "
        "both layers weights of their own and add the model again."
    )


def _own_names(head: Head) -> set[str]:
    """Return the names of a head's parameters in its own layers, also of tied ones."""
    paths = [f"{layer.module}." if layer.module else "" for layer in head.layers]
    return {f"{path}{part}" for path in paths for part in ("weight", "bias")}


def _tied(scope: str, structure: Structure, names: Collection[str]) -> tuple[str, ...]:
    """Return the names outside of a scope of tied parameters that are dampened in it."""
    if scope.strip() == "all":
        return ()
    if is_head_scope(scope):
        inside = sorted(_own_names(structure.head)) if structure.head is not None else []
    else:
        inside = [*split_scope(scope)]
    dampened = [some for some in structure.ties if not set(names).isdisjoint(some)]
    return tuple(
        name
        for some in dampened
        for name in some
        if not any(name == one or fnmatchcase(name, one) for one in inside)
    )


def _not_covered(
    network: nn.Module, scope: str, head: Head | None, covered: Sequence[str]
) -> tuple[str, ...]:
    """Return the parameters of a network in scope that the packet does not cover."""
    try:
        own = resolve_scope(network, scope, head)
    except ScopeError:  # the glob fits the roots only
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
