"""Fisher-based inheritance unlearning (FIUn, arXiv 2408.08493): merge, fix the gauge, dampen.

The three steps stand in modules of their own and are available from here; this module composes the
part that an owner runs on each of its models.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from disinherit.common.dampening import Dampened, dampen, dampen_
from disinherit.common.errors import ScopeError
from disinherit.common.gauge import LinearHead, check_strength, fix_gauge
from disinherit.common.merging import MergeRule, check_fisher, merge_fishers

__all__ = [
    "Dampened",
    "LinearHead",
    "MergeRule",
    "check_fisher",
    "check_strength",
    "dampen",
    "fix_gauge",
    "merge_fishers",
    "unlearn_parameters",
]


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
    head: tuple[str, str | None] | None = None,
    forgotten_rows: Sequence[int] | None = None,
    in_place: bool = False,
) -> Dampened:
    """Unlearn in one model: fix the gauge of its head, then dampen what is in scope.

    The gauge is fixed when `gauge` > 0 and the head's weight is among the parameters; a bias that
    is not among them stays where it is, which is as invisible to softmax. Fishers are the same in
    every gauge, so those of the model as it was fit.

    Args:
        parameters: the parameters in scope: name -> floating-point tensor.
        forget: merged Fisher of the data to forget; names and shapes of `parameters`.
        reference: Fisher to compare with; names and shapes of `parameters`.
        alpha: selection threshold, > 0.
        lam: dampening constant, > 0.
        exponent: of the dampening factor, > 0.
        bound: largest factor, in (0, 1].
        gauge: strength of the gauge shift, >= 0; 0 for the published rule.
        head: names of the linear head's weight `[C, d]` and bias `[C]` (`None` without bias), in
            scope or not; `None` for a model without such a head.
        forgotten_rows: select in the head only in these rows, in none if empty; `None` to select
            in all rows.
        in_place: dampen the given tensors themselves, all but a head whose gauge is shifted. They
            are as they were if nothing is selected.

    Returns:
        The dampened tensors, and how much was selected. The inputs are untouched unless `in_place`.

    Raises:
        InputError: if a number is out of range.
        FisherError: if names or shapes differ, or a Fisher value is not finite or negative.
        ScopeError: if the head does not have the shape of one, rows are given without a head or
            do not exist, or a parameter is not floating-point.
    """
    check_strength(gauge)
    if forgotten_rows and head is None:
        raise ScopeError(
            f"Expected the names of the head's parameters with forgotten rows "
            f"{list(forgotten_rows)}, but got no head."
        )
    weight, bias = head or (None, None)
    shifted = dict(parameters)
    if gauge > 0 and weight in shifted:
        fixed = fix_gauge(LinearHead(shifted[weight], shifted.get(bias) if bias else None), gauge)
        shifted[weight] = fixed.weight
        if bias and fixed.bias is not None:
            shifted[bias] = fixed.bias
    rows = {}
    if forgotten_rows is not None:
        rows = {name: forgotten_rows for name in (weight, bias) if name and name in shifted}
    if in_place:
        counts = dampen_(shifted, forget, reference, alpha, lam, exponent, bound, rows)
        return Dampened(shifted, counts)
    return dampen(shifted, forget, reference, alpha, lam, exponent, bound, rows)
