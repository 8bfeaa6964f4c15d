"""A second device that computes on the CPU, and refuses tensors of both in one operation.

It looks like `cuda:0` to Python code: tensors that are created on it, or moved to it, say so, and
so does what is computed of them.  As on a real one, a tensor of the CPU is refused beside them,
unless it is a single number or is copied.  So code that forgets to name a device fails.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PLACE = torch.device("cuda", 0)

Arguments = Sequence[Any]


class _Places:
    """Which tensors are on the second device, by their storage."""

    def __init__(self) -> None:
        self._there: dict[int, StorageWeakRef] = {}  # a storage that is kept has its own address

    def has(self, tensor: Tensor) -> bool:
        return int(tensor.untyped_storage()._cdata) in self._there

    def put(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._there[int(storage._cdata)] = StorageWeakRef(storage)


class _Names(TorchFunctionMode):
    """What Python code sees and asks for: `device` of tensors, and as an argument."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Arguments = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and args and isinstance(args[0], Tensor):
            if func == torch.Tensor.device.__get__:
                return PLACE if self._places.has(args[0]) else func(*args)
            if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
                return self._places.has(args[0])
        wanted = self._wanted(name, args, kwargs)
        if wanted is None:
            return func(*args, **kwargs)
        here, named = tree_map(_on_cpu, (tuple(args), dict(kwargs)))
        with torch.utils._python_dispatch._disable_current_modes():
            found: Tensor = func(*here, **named)
            if self._places.has(found) != wanted:
                found = found.clone()
        if wanted:
            self._places.put(found)
        return found

    def _wanted(self, name: str, args: Arguments, kwargs: Mapping[str, Any]) -> bool | None:
        """Return whether the second device is asked for; `None` if no device is."""
        if name == "cpu":
            return False
        if name in ("_parse_to", "device"):  # they read names alone
            return None
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)]
        given += [torch.device(one) for one in (kwargs.get("device"),) if isinstance(one, str)]
        if name == "to":
            given += [torch.device(one) for one in args[1:] if isinstance(one, str)]
            if any(isinstance(one, Tensor) for one in args[1:]):
                return self._places.has(args[1])
        return given[0].type == PLACE.type if given else None


class _Refusals(TorchDispatchMode):
    """What is computed: of tensors of one device, which the result is on."""

    def __init__(self, places: _Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = places

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: Arguments = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [one for one in tensors if self._places.has(one)]
        if func is torch.ops.aten.copy_.default:
            there = there if self._places.has(args[0]) else []
        elif there and any(one.ndim and not self._places.has(one) for one in tensors):
            raise RuntimeError(f"Expected all tensors on the same device in {func}.")
        found = func(*args, **(kwargs or {}))
        if there:
            for one in tree_flatten(found)[0]:
                if isinstance(one, Tensor):
                    self._places.put(one)
        return found


def _on_cpu(one: Any) -> Any:
    is_device = isinstance(one, torch.device) or (isinstance(one, str) and one.startswith("cuda"))
    return torch.device("cpu") if is_device else one


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Have a second device, and give its name."""
    places = _Places()
    with _Refusals(places), _Names(places):
        yield PLACE
