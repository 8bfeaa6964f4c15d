"""Unlearning in one model, with one parameter outside of its head in memory at a time."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.fiun.dampening import dampen_
from disinherit.common.fiun.unlearning import (
    Heads,
    clear_rows,
    head_names,
    rows_end_at_bottom,
    unlearn_parameters,
)
from disinherit.common.tensors.lazy import is_divided, row_blocks, rows_of, select_names


def unlearn_each(
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    write: Callable[[str, Tensor], None],
    *,
    alpha: float = 1.0,
    lam: float = 1.0,
    exponent: float = 1.0,
    bound: float = 1.0,
    gauge: float = 1.0,
    heads: Heads = (),
    forgotten_rows: Sequence[int] | None = None,
    cleared_rows: Sequence[int] = (),
) -> dict[str, Tensor]:
    """Unlearn as `unlearn_parameters` does, bit for bit, parameter by parameter.

    Where Fishers are lazy, a block of rows of them is in memory at a time.

    Args:
        parameters: as in `unlearn_parameters`, like all that is not said here; each is changed in
            place after it was asked for, so lazy ones give a copy.
        forget: merged Fisher of the forget set.
        reference: Fisher to compare with.
        write: called once with the name and the new value of each parameter.
        alpha: selection threshold.
        lam: dampening constant.
        exponent: exponent of the dampening factor.
        bound: largest factor.
        gauge: strength of the gauge shift.
        heads: names of the head's weights and biases.
        forgotten_rows: rows of the forgotten classes in the head.
        cleared_rows: rows of classes that were forgotten before.

    Returns:
        Parameter name -> number of selected values per row, as in `Dampened`.

    Raises:
        InputError: as `unlearn_parameters`, like all that follow; what was written by then is of no
            use.
        FisherError: likewise.
        ScopeError: likewise.
    """
    own = [name for name in head_names(heads) if name in parameters]
    selected: dict[str, Tensor] = {}
    for name in parameters:
        if name in own:
            continue
        theta = parameters[name]
        selected[name] = _dampened(name, theta, forget, reference, (alpha, lam, exponent, bound))
        write(name, theta)
    if not own and not heads and forgotten_rows is None:
        return selected
    head = {name: parameters[name] for name in own}
    outcome = unlearn_parameters(
        head,
        select_names(forget, own),
        select_names(reference, own),
        alpha=alpha,
        lam=lam,
        exponent=exponent,
        bound=bound,
        gauge=gauge,
        heads=heads,
        forgotten_rows=forgotten_rows,
        cleared_rows=cleared_rows,
        in_place=True,
    )
    new: Mapping[str, Tensor] = outcome.parameters
    if not outcome.selected_count:
        if any(bool(counts.any()) for counts in selected.values()):
            out = rows_end_at_bottom(own, heads, forgotten_rows)
            clear_rows(new, heads, [*(forgotten_rows or () if out else ()), *cleared_rows])
        else:  # the gauge alone does not make a new version
            new = head
    for name, value in new.items():
        write(name, value)
    return {name: (selected | outcome.selected)[name] for name in parameters}


def _dampened(
    name: str,
    theta: Tensor,
    forget: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    rule: tuple[float, float, float, float],
) -> Tensor:
    """Dampen one parameter in place, and return the number of selected values per row."""
    if not any(is_divided(side, name) for side in (forget, reference)):
        found = dampen_({name: theta}, {name: forget[name]}, {name: reference[name]}, *rule)
        return found[name]
    counts = []
    for rows in row_blocks(theta.shape):
        one, other = ({name: rows_of(side, name, rows)} for side in (forget, reference))
        counts.append(dampen_({name: theta[rows]}, one, other, *rule)[name])
    return torch.cat(counts)
