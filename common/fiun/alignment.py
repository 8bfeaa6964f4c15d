"""Row alignment of tensors by class name, across models with different label spaces."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disinherit.common.errors import LabelError
from disinherit.common.graph.labels import label_correspondence


def align_rows(
    tensor: Tensor,
    source: Sequence[str],
    target: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    fill: float = 0.0,
    dim: int = 0,
) -> Tensor:
    """Rearrange the rows of a tensor from one label space to another, by class name.

    Args:
        tensor: tensor with `len(source)` rows in dimension `dim`.
        source: distinct class names of the given rows.
        target: distinct class names of the resulting rows.
        mapping: source class name -> target class name, where they differ.
        fill: value of target rows without a counterpart in the source.
        dim: dimension of the rows.

    Returns:
        A new detached tensor with `len(target)` rows in dimension `dim`. Source rows without a
        counterpart in the target are left out.

    Raises:
        LabelError: if the numbers of rows and names differ, or the mapping does not fit the label
            spaces.

    Example:
        >>> align_rows(torch.tensor([1.0, 2.0]), ["cat", "dog"], ["owl", "dog"])
        tensor([0., 2.])
    """
    if not -tensor.ndim <= dim < tensor.ndim:
        raise LabelError(
            f"Expected a tensor with rows in dimension {dim}, but got shape {list(tensor.shape)}."
        )
    if tensor.shape[dim] != len(source):
        raise LabelError(
            f"Expected {len(source)} rows in dimension {dim}, one per class of {list(source)}, "
            f"but got shape {list(tensor.shape)}."
        )
    pairs = label_correspondence(source, target, mapping or {})
    given = tensor.detach()
    shape = list(given.shape)
    shape[dim] = len(target)
    wanted = given.new_full(shape, fill)
    sources = torch.tensor([row for row, _ in pairs], dtype=torch.int64, device=given.device)
    targets = torch.tensor([row for _, row in pairs], dtype=torch.int64, device=given.device)
    return wanted.index_copy_(dim, targets, given.index_select(dim, sources))
