"""Changes of weights: their difference, their sum with other weights, and what is left of them.

A model m that descends from roots r, each changed by δ_r, inherits::

    θ_m' = θ_m + Σ_r C(r, m) δ_r

Running means and variances of normalisation layers are changes like parameters, and a variance
never falls below 0.  Integer buffers, such as counts of batches, are left out.  A tied parameter
has one change, under its first name.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.deltas.codes import check_change, check_dtype
from disinherit.common.errors import FisherError
from disinherit.common.fisher.gradients import widest
from disinherit.common.limits import clipped, shown
from disinherit.common.models.devices import has_triton
from disinherit.common.tensors.lazy import blocks_of

_PIECE = 2**20
_PIECES = 32  # of the largest tensor at least: 25 bytes of a value are needed beside it
_LEAST_PIECE = 2**13  # 0.2 MB beside it: smaller pieces take longer, and spare nothing

Ties = Iterable[Sequence[str]]
"""All names of each tied parameter, as `Structure.ties`; names that share memory need none."""


@torch.no_grad()
def difference(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], ties: Ties = ()
) -> dict[str, Tensor]:
    """Return the change of weights: after minus before, in at least float32.

    Args:
        before: name -> parameter or buffer.
        after: the same names and shapes.
        ties: names of tied parameters.

    Returns:
        Name -> change, of floating-point tensors that changed; of a tied one under its first name.

    Raises:
        FisherError: if names or shapes differ, a change is not finite, or what changed is complex
            or has floats of 8 bits.

    Example:
        >>> difference({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])})
        {'w': tensor([2.])}
    """
    if before.keys() != after.keys():
        names = sorted(before.keys() ^ after.keys())
        raise FisherError(
            "Expected the same names in the weights before and after, but got only in one "
            f"{clipped(', '.join(names))}."
        )
    changes = {}
    for name, *_ in _groups(after, ties):
        old, new = before[name], after[name]
        if old.shape != new.shape:
            raise FisherError(
                f"Expected one shape of {shown(name)} before and after, but got {list(old.shape)} "
                f"and {list(new.shape)}."
            )
        if new.is_complex() and not torch.equal(new, old):
            check_dtype(name, new, "the weights after")
        if not new.is_floating_point():
            continue
        check_change(name, old, "the weights before")
        check_change(name, new, "the weights after")
        wide = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
        change = new.to(wide) - old.to(new.device, wide)
        check_change(name, change, "the difference of weights")
        if change.any():
            changes[name] = change
    return changes


@torch.no_grad()
def add(
    weights: Mapping[str, Tensor],
    shares: Sequence[tuple[Mapping[str, Tensor], float]],
    ties: Ties = (),
) -> dict[str, int]:
    """Add changes of roots to weights, in place.

    Sums are computed in float64 where the device has it, and rounded once, in pieces of a tensor:
    at most its own size, or 0.2 MB, is needed beside weights and changes.

    Args:
        weights: name -> parameter or buffer of the model; they keep their dtypes.
        shares: changes of a root, with rows of the head as in the model, and what to multiply them
            by.
        ties: names of the model's tied parameters.

    Returns:
        Name -> number of values that changed, of each tensor that a change is for.

    Raises:
        FisherError: if a name or shape does not fit, before anything is changed; or if a sum is
            beyond the range of its dtype: then the weights are of no use any more.

    Example:
        >>> weights = {"w": torch.tensor([1.0, 2.0])}
        >>> add(weights, [({"w": torch.tensor([0.0, 4.0])}, 0.5)]), weights
        ({'w': 1}, {'w': tensor([1., 4.])})
    """
    groups = {name: names for names in _groups(weights, ties) for name in names}
    _check_shares(weights, shares, groups)
    largest = max((value.nbytes for value in weights.values()), default=0)
    most = min(_PIECE, max(_LEAST_PIECE, largest // _PIECES))
    counts: dict[str, int] = {}
    for names in dict.fromkeys(groups.values()):
        given = [
            (changes[name], coefficient)
            for changes, coefficient in shares
            for name in names
            if name in changes
        ]
        if given:
            counts[names[0]] = _add_to(weights, names, given, most)
    return counts


@torch.no_grad()
def left_in(
    model: Mapping[str, Tensor],
    model_start: Mapping[str, Tensor],
    root: Mapping[str, Tensor],
    root_start: Mapping[str, Tensor],
) -> float:
    """Return how much of a root's update is left in a model, without any data.

    With weights θ and starts of training p it is c = ⟨θ_m - p_m, θ_r - p_r⟩ / ‖θ_r - p_r‖²: 1 for
    the root itself, 0 for a model that has nothing of it.  It is computed in float64 where the
    device has it, over floating-point tensors that all four have in one shape, but not over running
    statistics, which have other units than weights.

    Args:
        model: weights of the model.
        model_start: weights that the model's inheritance is measured from: those of the root's
            start, or of its counterpart.
        root: weights of the root.
        root_start: weights that the root's training started from.

    Raises:
        FisherError: if they have no tensor in common, or the root's training changed nothing.

    Example:
        >>> zero, root = {"w": torch.zeros(2)}, {"w": torch.tensor([0.0, 4.0])}
        >>> left_in({"w": torch.tensor([9.0, 2.0])}, zero, root, zero)
        0.5
    """
    product, square, common = 0.0, 0.0, False
    for name, *_ in _groups(root, ()):
        if any(name not in other for other in (model, model_start, root_start)):
            continue
        before = root_start[name]
        own_start = before if model_start is root_start else model_start[name]
        four = [model[name], own_start, root[name], before]
        shape = before.shape
        if is_running_statistic(name) or not all(
            value.is_floating_point() and value.shape == shape for value in four
        ):
            continue
        common = True
        for m, p, r, q in _pieces(four, _PIECE):
            wide = widest(r.device)
            update = r.to(wide) - q.to(r.device, wide)
            own = m.to(r.device, wide) - p.to(r.device, wide)
            product += float((own * update).sum())
            square += float(update.square().sum())
    if not common or not square or not math.isfinite(product / square):
        raise FisherError(
            "Expected a root whose training changed weights that the model has too, and finite "
            "ones, but got no such change. Make the model a root, or retrain it."
        )
    return product / square


@torch.no_grad()
def length(tensors: Iterable[Tensor]) -> float:
    """Return the L2 norm of tensors together, in float64 where the device has it, in pieces.

    Args:
        tensors: of any shapes; only those with floating-point values count.

    Example:
        >>> length([torch.tensor([3.0]), torch.tensor([[4.0]])])
        5.0
    """
    square = 0.0
    for value in tensors:
        if value.is_floating_point():
            for (piece,) in _pieces([value], _PIECE):
                wide = piece.to(widest(piece.device), copy=True)
                square += float(wide.square_().sum())
    return math.sqrt(square)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of a change: that of weights, and that of running statistics, which is another unit.

    Attributes:
        weights: L2 norm of the change of weights.
        statistics: L2 norm of that of running statistics.
    """

    weights: float
    statistics: float


def lengths_of(change: Mapping[str, Tensor]) -> Lengths:
    """Return the lengths of a change, which is read for it.

    Args:
        change: name -> change.
    """
    found = []
    for kind in (False, True):
        names = [name for name in change if is_running_statistic(name) is kind]
        blocks = (value for name in names for (value,) in blocks_of(change, name=name))
        found.append(length(blocks))
    return Lengths(*found)


def _add_to(
    weights: Mapping[str, Tensor],
    names: Sequence[str],
    given: Sequence[tuple[Tensor, float]],
    most: int,
) -> int:
    """Add changes to a parameter under all its names, and return how many values changed."""
    targets = list({_memory(weights[name]): weights[name] for name in names}.values())
    changes = [change for change, _ in given]
    variance = _is_variance(names[0])
    if has_triton(targets[0].device):
        from disinherit.common.tensors import fused  # has Triton, which a CPU lacks

        if fused.can_add(targets[0], changes):
            shares = [coefficient for _, coefficient in given]
            count, finite = fused.add_changes(targets[0], changes, shares, variance)
            _check_finite(finite, names[0], targets[0].dtype)
            for alias in targets[1:]:
                alias.copy_(targets[0])
            return count
    count = 0
    for piece in _pieces([*targets, *changes], most):
        target, aliases, parts = piece[0], piece[1 : len(targets)], piece[len(targets) :]
        wide = widest(target.device)
        total = target.to(wide)
        if total is target:
            total = target.clone()
        for part, (_, coefficient) in zip(parts, given, strict=True):
            total.add_(part.to(target.device, wide), alpha=coefficient)
        if variance:
            total.clamp_(min=0)
        new = total.to(target.dtype)
        finite = all(math.isfinite(bound.item()) for bound in new.aminmax())
        _check_finite(finite, names[0], target.dtype)
        count += int((new != target).count_nonzero())
        for place in (target, *aliases):
            place.copy_(new)
    return count


def _check_finite(finite: bool, name: str, dtype: torch.dtype) -> None:
    if not finite:
        raise FisherError(
            f"Expected finite values of {shown(name)} with the changes of its roots, but "
            f"got values beyond {dtype}. Retrain the model."
        )


def _check_shares(
    weights: Mapping[str, Tensor],
    shares: Sequence[tuple[Mapping[str, Tensor], float]],
    groups: Mapping[str, Sequence[str]],
) -> None:
    for changes, coefficient in shares:
        if not math.isfinite(coefficient):
            raise FisherError(f"Expected a finite share of a root's change, but got {coefficient}.")
        unknown = sorted(changes.keys() - weights.keys())
        if unknown:
            raise FisherError(
                "Expected changes of tensors that the model has, but got those of "
                f"{clipped(', '.join(unknown))}. Make the model a root, or retrain it."
            )
        firsts: dict[str, str] = {}
        for name, change in changes.items():
            own = weights[name]
            if not own.is_floating_point() or own.shape != change.shape:
                raise FisherError(
                    f"Expected a change of {list(own.shape)} values in a floating-point dtype for "
                    f"{shown(name)}, as the model has {own.dtype}, but got {list(change.shape)}. "
                    "Make the model a root, or retrain it."
                )
            check_dtype(name, own, "the model")
            other = firsts.setdefault(groups[name][0], name)
            if other != name:
                raise FisherError(
                    f"Expected one change of the tied parameter {shown(name)}, but got another as "
                    f"{shown(other)}. Make the model a root, or retrain it."
                )


def _groups(weights: Mapping[str, Tensor], ties: Ties) -> list[tuple[str, ...]]:
    """Return all names of each tensor: tied ones together, others alone, in the weights' order.

    Tied names are in the network's order, as files sort them: what derives from a language model
    has its embedding more often than its head.
    """
    tied = {name: ("tie", names[0]) for names in ties for name in names}
    places = {name: place for names in ties for place, name in enumerate(names)}
    held = isinstance(weights, dict)  # tensors that are read one by one share no memory
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in weights:
        memory = _memory(weights[name]) if held and name not in tied else ()
        groups.setdefault(tied.get(name) or memory or ("name", name), []).append(name)
    return [tuple(sorted(names, key=lambda one: places.get(one, 0))) for names in groups.values()]


def _memory(value: Tensor) -> tuple[object, ...]:
    """Return what two views of the same values have in common; nothing for no values."""
    if not value.numel():
        return ()
    return value.device, value.data_ptr(), value.shape, value.stride()


def _pieces(tensors: Sequence[Tensor], most: int) -> Iterator[Sequence[Tensor]]:
    """Yield views of tensors of one shape, of at most so many values each."""
    first = tensors[0]
    if first.numel() <= most:
        if first.numel():
            yield tensors
        return
    dim = max(range(first.dim()), key=first.shape.__getitem__)
    half = first.shape[dim] // 2
    yield from _pieces([tensor.narrow(dim, 0, half) for tensor in tensors], most)
    rest = first.shape[dim] - half
    yield from _pieces([tensor.narrow(dim, half, rest) for tensor in tensors], most)


def _is_variance(name: str) -> bool:
    return name.rpartition(".")[2] == "running_var"


def is_running_statistic(name: str) -> bool:
    """Whether a name is that of a running mean or variance.

    A model that was trained after it inherited them has those of its own data, in the end.
    """
    return _is_variance(name) or name.rpartition(".")[2] == "running_mean"
