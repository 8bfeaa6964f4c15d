"""Backward passes through batch norm that are right whatever the layout of the gradient.

For one sample in eval mode on a CPU, torch (2.13) computes wrong gradients of a contiguous batch
norm where the gradient of its output is laid out with channels last, as it is in a network that
makes tokens of an image by `flatten(2).transpose(1, 2)` (timm's XCiT).  Finite differences show it;
larger batches and `torch.func.vmap` are not affected.  With the layout of the output it is right.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def right_norm_gradients(model: nn.Module) -> Iterator[None]:
    """Give gradients of batch norms the layout of their outputs, in passes made within."""
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
