"""Squared gradients of bounded size: one gradient per sample, each parameter's square clipped."""

from collections.abc import Iterator

from torch import Tensor

from disinherit.common._fisher_methods import Probe, SamplesMethod
from disinherit.common._fisher_sums import Batch, Sums


class ClippedMethod(SamplesMethod):
    """Sums min(1, C / ‖g²‖₂) g² in the place of g², for each sample and parameter.

    Args:
        seen: what is known of the model.
        clip_norm: C, > 0.
    """

    def __init__(self, seen: Probe, clip_norm: float) -> None:
        super().__init__(seen, vmap_only=False)
        self._clip_norm = clip_norm

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add the batch in chunks."""
        super().add(batch, _Clipped(sums, self._clip_norm))


class _Clipped(Sums):
    """Sums that clip what is added to others."""

    def __init__(self, sums: Sums, clip_norm: float) -> None:
        self._sums = sums
        self._clip_norm = clip_norm
        self.dtype = sums.dtype

    def chunks(self, batch: Batch, elements: int, cached: bool = False) -> Iterator[slice]:
        return self._sums.chunks(batch, elements, cached)

    def add_squares(self, name: str, batch: Batch, squares: Tensor, rows: slice) -> None:
        norms = squares.flatten(1).norm(dim=1)
        factors = (self._clip_norm / norms.clamp(min=self._clip_norm)).to(squares.dtype)
        shape = (-1, *[1] * (squares.ndim - 1))
        self._sums.add_squares(name, batch, squares * factors.view(shape), rows)
