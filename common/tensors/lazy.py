"""Tensors that are computed each time they are asked for, so that nobody has to hold them all."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, computed when they are asked for.

    Args:
        names: their names.
        compute: name -> the tensor; another copy each time, or the same.

    Example:
        >>> import torch
        >>> halves = LazyTensors(["w"], lambda name: torch.ones(2) / 2)
        >>> halves["w"], list(halves), "b" in halves
        (tensor([0.5000, 0.5000]), ['w'], False)
    """

    def __init__(self, names: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._compute = compute

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # nothing is computed
