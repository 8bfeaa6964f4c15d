"""Fisher-based inheritance unlearning (FIUn, arXiv 2408.08493): merge, fix the gauge, dampen.

The steps stand in modules of their own and are available from here; this module composes the part
that an owner runs on each of its models: dampening, or for the rows of forgotten classes in a head
the place below all others.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import ScopeError
from disinherit.common.fiun.bottom_rows import check_rows, put_at_bottom
from disinherit.common.fiun.dampening import Dampened, dampen, dampen_
from disinherit.common.fiun.gauge import LinearHead, check_strength, fix_gauge
from disinherit.common.fiun.merging import check_fisher, merge_fishers
from disinherit.common.method import MergeRule

__all__ = [
    "Dampened",
    "LinearHead",
    "MergeRule",
    "StrengthGrid",
    "check_fisher",
    "check_strength",
    "clear_rows",
    "dampen",
    "fix_gauge",
    "merge_fishers",
    "rows_end_at_bottom",
    "unlearn_parameters",
]

Heads = Sequence[tuple[str, str | None]]
"""Names of the weight and the bias, or `None`, of each layer that makes the logits."""


def unlearn_parameters(
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    *,
    alpha: float = 1.0,
    lam: float = 1.0,
    exponent: float = 1.0,
    bound: float = 1.0,
    gauge: float = 1.0,
    heads: Heads = (),
    forgotten_rows: Sequence[int] | None = None,
    cleared_rows: Sequence[int] = (),
    in_place: bool = False,
) -> Dampened:
    """Unlearn in one model: dampen what is in scope, and take forgotten rows out of its head.

    With `forgotten_rows`, nothing but these rows changes in the head.  Where weight and bias are
    both among the parameters, the rows are taken out whatever their Fisher information says
    (`put_at_bottom`), all of their values count as selected, and there is no gauge to fix: all
    other rows stay bit for bit.

    Without, or if the head is among the parameters in part only, it is dampened like the rest.
    Before that, the gauge is fixed when `gauge` > 0 and the head's weight is among the parameters;
    a bias that is not among them stays where it is, which is as invisible to softmax.  Fishers are
    the same in every gauge, so those of the model as it was fit.

    Args:
        parameters: the parameters in scope: name -> floating-point tensor.
        forget: merged Fisher of the data to forget; names and shapes of `parameters`.
        reference: Fisher to compare with; names and shapes of `parameters`.
        alpha: selection threshold, > 0.
        lam: dampening constant, > 0.
        exponent: of the dampening factor, > 0.
        bound: largest factor, in (0, 1].
        gauge: strength of the gauge shift, >= 0; 0 for the published rule.
        heads: names of the weight `[C, d]` or `[C, d, ...]` and the bias `[C]` (`None` without one)
            of each layer that makes the logits, in scope or not; none for a model without a head.
        forgotten_rows: rows of the forgotten classes in the head, none if the model knows none of
            them; `None` to select in all rows.
        cleared_rows: rows of classes that were forgotten before.  Where something is selected they
            go to the bottom again: what they lie below has changed.
        in_place: change the given tensors themselves, all but a head whose gauge is shifted. They
            are as they were if nothing is selected.

    Returns:
        The new tensors, and how much was selected. The inputs are untouched unless `in_place`.

    Raises:
        InputError: if a number is out of range.
        FisherError: if names or shapes differ, or a Fisher value is not finite or negative.
        ScopeError: if the head does not have the shape of one, rows are given without a head or
            do not exist, or a parameter is not floating-point.
    """
    check_strength(gauge)
    rows = _rows(parameters, heads, forgotten_rows)
    bottom = rows_end_at_bottom(parameters, heads, forgotten_rows)
    if bottom:
        rows = dict.fromkeys(rows, ())
        shifted = dict(parameters)
    else:
        shifted = {**parameters, **_shifted(parameters, heads, gauge)}
    if in_place:
        counts = dampen_(shifted, forget, reference, alpha, lam, exponent, bound, rows)
        outcome = Dampened(shifted, counts)
    else:
        outcome = dampen(shifted, forget, reference, alpha, lam, exponent, bound, rows)
    if bottom and forgotten_rows:
        _count_rows(outcome, heads, forgotten_rows)
    if outcome.selected_count:
        gone = [*(forgotten_rows or () if bottom else ()), *cleared_rows]
        clear_rows(outcome.parameters, heads, gone)
    return outcome


def rows_end_at_bottom(
    names: Collection[str], heads: Heads, forgotten_rows: Sequence[int] | None
) -> bool:
    """Return whether forgotten rows are taken out of the head, and not dampened.

    Args:
        names: of the parameters in scope.
        heads: names of the head's weights and biases.
        forgotten_rows: as in `unlearn_parameters`.
    """
    return forgotten_rows is not None and _complete(names, heads)


def clear_rows(parameters: Mapping[str, Tensor], heads: Heads, rows: Sequence[int]) -> None:
    """Put rows of a head that is completely in scope at the bottom, in place.

    Args:
        parameters: the parameters in scope.
        heads: names of the head's weights and biases.
        rows: of forgotten classes.

    Raises:
        ScopeError: if there is no such row.
    """
    if rows and _complete(parameters, heads):
        for weight, bias in heads:
            put_at_bottom(parameters[weight], parameters[bias] if bias else None, rows)


class StrengthGrid:
    """Leads to what dampening would at many strengths, computing little again.

    It says how strongly to dampen, so also the rows of forgotten classes are dampened here, by the
    Fisher information as all else.

    Dampening multiplies, by factors that depend on the Fishers alone, and Fishers are the same in
    every gauge.  So the factors of the head are what ones are dampened to, and the rest of the
    model is the same at every strength of the gauge.

    Args:
        parameters: as in `unlearn_parameters`, like all that follow.
        forget: merged Fisher of the data to forget.
        reference: Fisher to compare with.
        exponent: of the dampening factor.
        bound: largest factor.
        heads: names of the head's weights and biases.
        forgotten_rows: rows of the head to select in.

    Raises:
        ScopeError: if rows are given without a head.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        forget: Mapping[str, Tensor],
        reference: Mapping[str, Tensor],
        *,
        exponent: float = 1.0,
        bound: float = 1.0,
        heads: Heads = (),
        forgotten_rows: Sequence[int] | None = None,
    ) -> None:
        self._rows = _rows(parameters, heads, forgotten_rows)
        self._forget, self._reference = forget, reference
        self._exponent, self._bound = exponent, bound
        self._named = heads
        own = {name: parameters[name] for name in _names(heads) if name in parameters}
        self._own_head = {name: value.detach() for name, value in own.items()}
        self._heads: dict[float, dict[str, Tensor]] = {}
        self._start = dict(parameters)
        for name, value in self._own_head.items():
            # Factors in full: rounded once more before they are multiplied, they would differ.
            dtype = torch.promote_types(value.dtype, torch.float32)
            for fisher in (forget, reference):
                if name in fisher:
                    dtype = torch.promote_types(dtype, fisher[name].dtype)
            self._start[name] = torch.ones_like(value, dtype=dtype)

    @torch.no_grad()
    def __call__(
        self, alpha: float, lam: float, gauges: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        """Return the new parameters at each strength of the gauge.

        Args:
            alpha: selection threshold.
            lam: dampening constant.
            gauges: strengths of the gauge shift.

        Returns:
            Per strength the gauge fixed and all in scope dampened: what `unlearn_parameters`
            gives, bit for bit, but for rows that it takes out. All share the tensors outside the
            head.

        Raises:
            InputError: as `unlearn_parameters`, like all that follow.
            FisherError: likewise.
            ScopeError: likewise.
        """
        new = dampen(
            self._start,
            self._forget,
            self._reference,
            alpha,
            lam,
            self._exponent,
            self._bound,
            self._rows,
        ).parameters
        made = []
        for gauge in gauges:
            if gauge not in self._heads:
                shifted = _shifted(self._own_head, self._named, gauge)
                self._heads[gauge] = {**self._own_head, **shifted}
            head = self._heads[gauge]
            made.append(new | {n: (new[n] * value).to(value.dtype) for n, value in head.items()})
        return made


def _shifted(parameters: Mapping[str, Tensor], heads: Heads, gauge: float) -> dict[str, Tensor]:
    """Return the head's parameters in another gauge; none where that is not to be fixed."""
    check_strength(gauge)
    shifted: dict[str, Tensor] = {}
    for weight, bias in heads if gauge else ():
        if weight in parameters:
            own = LinearHead(parameters[weight], parameters.get(bias) if bias else None)
            fixed = fix_gauge(own, gauge)
            shifted[weight] = fixed.weight
            if bias and fixed.bias is not None:
                shifted[bias] = fixed.bias
    return shifted


def _names(heads: Heads) -> list[str]:
    """Return the names of all weights and biases, each once."""
    return list(dict.fromkeys(name for pair in heads for name in pair if name))


def _complete(names: Collection[str], heads: Heads) -> bool:
    return bool(heads) and all(name in names for name in _names(heads))


def _count_rows(outcome: Dampened, heads: Heads, rows: Sequence[int]) -> None:
    """Count all values of these rows of the head as selected."""
    for name in _names(heads):
        value = outcome.parameters[name]
        check_rows(len(value), rows)
        for row in rows:
            outcome.selected[name][row] = value[row].numel()


def _rows(
    parameters: Mapping[str, Tensor], heads: Heads, forgotten_rows: Sequence[int] | None
) -> dict[str, Sequence[int]]:
    """Return the rows to select in, by the name of the head's parameters in scope."""
    if forgotten_rows and not heads:
        raise ScopeError(
            f"Expected the names of the head's parameters with forgotten rows "
            f"{list(forgotten_rows)}, but got no head."
        )
    if forgotten_rows is None:
        return {}
    return {name: forgotten_rows for name in _names(heads) if name in parameters}
