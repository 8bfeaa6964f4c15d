"""Fisher-based inheritance unlearning (FIUn, arXiv 2408.08493): merge, fix the gauge, dampen.

Each step has its own module and is exported here.  This module composes the part that an owner runs
on each of its models: dampening, or taking the rows of forgotten classes out of the head.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import ScopeError
from disinherit.common.fiun.bottom_rows import check_rows, put_at_bottom
from disinherit.common.fiun.dampening import Dampened, dampen, dampen_
from disinherit.common.fiun.gauge import LinearHead, check_strength, fix_gauge

Heads = Sequence[tuple[str, str | None]]
"""Names of the weight and the bias (or `None`) of each layer that makes the logits."""


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
    """Unlearn in one model: dampen the scope, and take forgotten rows out of its head.

    With `forgotten_rows`, only these rows of the head change.  If weight and bias are both among
    the parameters, the rows are taken out regardless of their Fisher information: put below all
    others.  All of their values count as selected, no gauge is fixed, and all other rows stay bit
    for bit.

    Otherwise, or if only a part of the head is among the parameters, it is dampened like the rest.
    Before that, the gauge is fixed if `gauge` > 0 and the head's weight is among the parameters; a
    bias that is not among them does not move, which softmax does not see either.  Fisher
    information is the same in every gauge, so that of the original model is valid.

    Args:
        parameters: the parameters in scope: name -> floating-point tensor.
        forget: merged Fisher of the forget set; names and shapes of `parameters`.
        reference: Fisher to compare with; names and shapes of `parameters`.
        alpha: selection threshold, > 0.
        lam: dampening constant, > 0.
        exponent: exponent of the dampening factor, > 0.
        bound: largest factor, in (0, 1].
        gauge: strength of the gauge shift, >= 0; 0 for the published rule.
        heads: names of the weight `[C, d]` or `[C, d, ...]` and the bias `[C]` (`None` without one)
            of each layer that makes the logits, in scope or not; none for a model without a head.
        forgotten_rows: rows of the forgotten classes in the head, empty if the model has none of
            them; `None` to select in all rows.
        cleared_rows: rows of classes that were forgotten before.  If anything is selected they are
            put at the bottom again, as the rows above them have changed.
        in_place: change the given tensors themselves, except a head with a shifted gauge. They are
            unchanged if nothing is selected.

    Returns:
        The new tensors, and the numbers of selected values. The inputs are untouched unless
            `in_place`.

    Raises:
        InputError: if a number is out of range.
        FisherError: if names or shapes differ, or a Fisher value is not finite or negative.
        ScopeError: if the head has another shape, rows are given without a head or do not exist, or
            a parameter is not floating-point.
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
        names: names of the parameters in scope.
        heads: names of the head's weights and biases.
        forgotten_rows: as in `unlearn_parameters`.
    """
    return forgotten_rows is not None and _complete(names, heads)


def is_lowest(heads: Heads, kept: int) -> bool:
    """Return whether rows at the bottom lie below the kept ones for features of either sign.

    Args:
        heads: names of the head's weights and biases.
        kept: number of kept rows.
    """
    return kept > 1 or (kept == 1 and all(bias for _, bias in heads))


def clear_rows(parameters: Mapping[str, Tensor], heads: Heads, rows: Sequence[int]) -> None:
    """Put rows at the bottom of a head that is completely in scope, in place.

    Args:
        parameters: the parameters in scope.
        heads: names of the head's weights and biases.
        rows: rows of forgotten classes.

    Raises:
        ScopeError: if a row does not exist.
    """
    if rows and _complete(parameters, heads):
        for weight, bias in heads:
            put_at_bottom(parameters[weight], parameters[bias] if bias else None, rows)


class StrengthGrid:
    """Results of dampening at many strengths, with shared computation.

    It chooses a strength, so it dampens the rows of forgotten classes like all others, by their
    Fisher information.

    Dampening multiplies by factors that depend only on the Fishers, and these are the same in every
    gauge.  So the factors of the head are the result of dampening ones, and the rest of the model
    is the same at every gauge strength.

    Args:
        parameters: as in `unlearn_parameters`, like all that follow.
        forget: merged Fisher of the forget set.
        reference: Fisher to compare with.
        exponent: exponent of the dampening factor.
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
        own = {name: parameters[name] for name in head_names(heads) if name in parameters}
        self._own_head = {name: value.detach() for name, value in own.items()}
        self._heads: dict[float, dict[str, Tensor]] = {}
        self._start = dict(parameters)
        for name, value in self._own_head.items():
            # Factors in full precision: rounding them before the product would change results.
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
            Per strength the parameters of `unlearn_parameters`, bit for bit, except that rows are
            dampened and not taken out. All share the tensors outside the head.

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
    """Return the head's parameters in another gauge; empty if the gauge is not fixed."""
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


def head_names(heads: Heads) -> list[str]:
    """Return the names of all weights and biases of a head, each once.

    Args:
        heads: names of its weights and biases.
    """
    return list(dict.fromkeys(name for pair in heads for name in pair if name))


def _complete(names: Collection[str], heads: Heads) -> bool:
    return bool(heads) and all(name in names for name in head_names(heads))


def _count_rows(outcome: Dampened, heads: Heads, rows: Sequence[int]) -> None:
    """Count all values of these rows of the head as selected."""
    for name in head_names(heads):
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
    return {name: forgotten_rows for name in head_names(heads) if name in parameters}
