"""The owner factory of a configuration: the function that opens an owner's models."""

import importlib
import re
from collections.abc import Callable
from typing import Any

from disinherit.client.owner.failures import one_line
from disinherit.common.errors import InputError

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""Form of `module:function`."""


def load_function(name: str) -> Callable[..., Any]:
    """Return the function named as `module:function`.

    Raises:
        InputError: if the module or function does not exist.

    Example:
        >>> load_function("math:sqrt")(9.0)
        3.0
    """
    if not FUNCTION.fullmatch(name):
        raise InputError(f"Expected an owner factory as module:function, but got {name!r}.")
    module, function = name.split(":")
    try:
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Expected an owner factory {name!r} that can be imported, but: {one_line(error)}. "
            "Install its module, or name its folder in PYTHONPATH."
        ) from error
    return loaded
