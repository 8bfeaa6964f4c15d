"""Gradients of cross-entropy with respect to logits, without cancellation.

With p = softmax(z) and y the true class, the gradient is r = p - onehot(y).  Its entry p_y - 1
cancels: for a well-fitted sample p_y rounds to 1 and the difference to 0, in float32 from a margin
of 17 on.  It equals -Σ_{k ≠ y} p_k.  With q the softmax over all classes but y and s = 1 - p_y::

    r = s (q - onehot(y)),    s = σ(log Σ_{k ≠ y} exp z_k - z_y)

s can be as small as the number format allows, and q - onehot(y) has entries of order 1.  So the
latter can be propagated backward in half precision and multiplied by s afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LARGE_TABLE = 2**16
"""Values of a table whose gradient is made of the rows that were looked up."""

_SPARSE_DEVICES = ("cpu", "cuda")
"""Devices for which PyTorch has sparse gradients."""


def widest(device: torch.device) -> torch.dtype:
    """Return the most precise dtype of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def residuals(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the cross-entropies of logits, in two factors.

    Args:
        logits: `[n, C]`, floating-point; gradients do not flow through here.
        targets: class indices, `[n]`.

    Returns:
        q - onehot, `[n, C]`, and s, `[n]`, in the most precise dtype of the device.  Their product
        is the gradient; both are NaN if a logit is NaN or the largest is infinite.
    """
    z = logits.detach().to(widest(logits.device))
    true = torch.arange(z.shape[1], device=z.device) == targets.unsqueeze(1)
    z = z - z.amax(1, keepdim=True)  # infinity - infinity is NaN, which must propagate
    others = z.masked_fill(true, -torch.inf)
    scales = torch.sigmoid(others.logsumexp(1) - torch.where(true, z, 0).sum(1))
    # Without another class, or if the model rules out all others, there is no gradient.
    alone = others.amax(1, keepdim=True) == -torch.inf
    directions = torch.where(alone, 0, others.softmax(1))
    return torch.where(true, -1, directions), scales


@contextmanager
def right_norm_gradients(model: nn.Module) -> Iterator[None]:
    """Give gradients of batch norms the layout of their outputs, within the block.

    For one sample in eval mode on a CPU, torch 2.13 computes wrong gradients of a contiguous batch
    norm if the gradient of its output has the layout channels last, as after
    `flatten(2).transpose(1, 2)` (timm's XCiT).  Finite differences show it.  Larger batches and
    `torch.func.vmap` are correct.
    """
    handles = [
        module.register_forward_hook(_watch)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def sparse_tables(model: nn.Module) -> Iterator[None]:
    """Give large embedding tables gradients of the rows that were looked up, within the block.

    A sample looks up a few of a vocabulary's rows, and a gradient of all of them is the largest
    tensor of many a language model.  Where the table is used in other ways, too, as one that is
    tied to the output layer, the gradient is of all rows as before.  So it is where something else
    than its own parameter would have to do with such a gradient: a hook of the parameter, or what
    the table is computed from.
    """
    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and type(module).forward is nn.Embedding.forward
        and "forward" not in vars(module)
        and not module.sparse
        and not module.scale_grad_by_freq
    ]
    handles = [table.register_forward_pre_hook(_begin_lookup) for table in tables]
    handles += [table.register_forward_hook(_end_lookup) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for table in tables:
            table.sparse = False  # also where a lookup failed


def _begin_lookup(table: nn.Embedding, _: object) -> None:
    weight: Tensor = table.weight  # as of this call: a function may have put another there
    table.sparse = (
        type(weight) is nn.Parameter
        and not weight._backward_hooks
        and not weight._post_accumulate_grad_hooks
        and weight.numel() >= _LARGE_TABLE
        and weight.device.type in _SPARSE_DEVICES
    )


def _end_lookup(table: nn.Embedding, *_: object) -> None:
    table.sparse = False


def _watch(_: nn.Module, __: object, output: Tensor) -> None:
    if isinstance(output, Tensor) and output.requires_grad:
        shape, strides = output.shape, output.stride()

        def laid_out(gradient: Tensor) -> Tensor:
            if gradient.stride() == strides:
                return gradient
            return torch.empty_strided(
                shape, strides, dtype=gradient.dtype, device=gradient.device
            ).copy_(gradient)

        output.register_hook(laid_out)
