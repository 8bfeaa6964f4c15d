"""Choosing where to compute, at run time."""

import torch

from disinherit.common.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device a name stands for.

    Args:
        name: `auto` for the accelerator that PyTorch finds, else the CPU; or `cpu`, `cuda:1`, ...

    Raises:
        InputError: if there is no such device here.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" is a device, but there are no values on it
    except (RuntimeError, AssertionError, ImportError) as error:
        available = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        raise InputError(
            f"Expected a device that is here (auto, {available}), but got {name!r}: "
            f"{str(error).splitlines()[0].split('. ')[0]}."
        ) from None
    return device
