"""Unlearning in many models with equal shapes in scope at once, on stacked parameters.

Every value equals that of `unlearn_parameters` on the model alone, bit for bit.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fiun.dampening import Dampened, dampen_
from disinherit.common.fiun.gauge import check_strength, shift_rows
from disinherit.common.fiun.unlearning import Heads, clear_rows, rows_end_at_bottom


@torch.no_grad()
def unlearn_stacked(
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
    cleared_rows: Sequence[Sequence[int]] = (),
) -> Dampened:
    """Unlearn in M models: dampen the scope, and take forgotten rows out of their heads.

    Args:
        parameters: the parameters in scope: name -> `[M, *shape]`.
        forget: merged Fisher of the forget set: name -> `[*shape]`, the same for all.
        reference: Fisher to compare with: name -> `[M, *shape]`.
        alpha: as in `unlearn_parameters`, like all that follow.
        lam: dampening constant.
        exponent: exponent of the dampening factor.
        bound: largest factor.
        gauge: strength of the gauge shift.
        heads: names of the weights and biases of a model's head.
        forgotten_rows: existing rows of a head.
        cleared_rows: rows of each model's head that earlier requests forgot, if any.

    Returns:
        New tensors `[M, *shape]`, and the number of selected values per model and row of its dim 0,
        `[M, shape[0]]` (`[M, 1]` for scalars). The inputs are untouched.

    Raises:
        InputError: if a number is out of range.
        FisherError: if names or shapes differ, or a Fisher value is not finite or negative.
        ScopeError: if a parameter is not floating-point.
    """
    check_strength(gauge)
    for name, stack in parameters.items():
        shapes = [list(fisher[name].shape) for fisher in (forget, reference) if name in fisher]
        if shapes != [list(stack.shape[1:]), list(stack.shape)]:
            raise FisherError(
                f"Expected Fishers of shapes {list(stack.shape[1:])} and {list(stack.shape)} for "
                f"{name!r}, but got {shapes}."
            )
    named = {name for pair in heads for name in pair if name}
    new = dict(parameters)
    bottom = rows_end_at_bottom(new, heads, forgotten_rows)
    if gauge > 0 and not bottom:
        for name in {name for pair in heads if pair[0] in new for name in pair if name in new}:
            new[name] = shift_rows(new[name], gauge, dim=1)
    selected = {}
    for name, stack in new.items():
        models, rows = len(stack), stack.shape[1] if stack.ndim > 1 else 1
        chosen = torch.arange(rows, device=stack.device)
        if forgotten_rows is not None and name in named:
            taken = () if bottom else sorted(set(forgotten_rows))
            chosen = torch.tensor(taken, dtype=torch.long).to(stack.device)
        size = models * len(chosen), stack[0].numel() // max(rows, 1)
        tables = stack.reshape(models, rows, size[1])
        theta = tables[:, chosen].reshape(size)
        one = forget[name].reshape(rows, size[1])[chosen]
        counts = dampen_(
            {name: theta},
            {name: one.expand(models, *one.shape).reshape(size)},
            {name: reference[name].reshape(tables.shape)[:, chosen].reshape(size)},
            alpha,
            lam,
            exponent,
            bound,
        )[name]
        tables = tables.clone()
        tables[:, chosen] = theta.view(models, *one.shape)
        new[name] = tables.view(stack.shape)
        selected[name] = counts.new_zeros(models, rows)
        selected[name][:, chosen] = counts.view(models, len(chosen))
        if bottom and name in named:
            selected[name][:, list(forgotten_rows or ())] = size[1]
    outcome = Dampened(new, selected)
    models = len(next(iter(new.values()), ()))
    for model, cleared in zip(range(models), cleared_rows or [()] * models, strict=True):
        if any(bool(counts[model].any()) for counts in selected.values()):
            gone = [*(forgotten_rows or () if bottom else ()), *cleared]
            clear_rows({name: value[model] for name, value in new.items()}, heads, gone)
    return outcome
