"""Sums of squared gradients per class, from which the Fisher information of any classes follows."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from disinherit.common.errors import FisherError
from disinherit.common.fisher.factors import product_of
from disinherit.common.fisher.pooled import Fisher
from disinherit.common.tensors.lazy import LazyTensors

_NOT_GIVEN = torch.empty(0, dtype=torch.int64)
_ALL = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class ClassFishers:
    """Sums of squared per-sample gradients of each class.

    A head `[C, d]` with very many classes is kept *by rows*: each class keeps only its own row, and
    each row the sum over the samples of all other classes.  That is 2 C d numbers instead of C² d,
    and enough to change only the rows of some classes.

    A matrix outside of the head may be *factored*: each class keeps the sums of its rows and of its
    columns, whose product is its Fisher information (docs/method.md).

    Attributes:
        sums: parameter name -> Σ gᵢ ∘ gᵢ over the samples of each class, `[P, *shape]`; for a
            parameter kept by rows only the class's own row, `[P, *shape[1:]]`; for a factored one
            the sums of rows, `[P, shape[0]]`.
        counts: samples per class, `[C]` int64, on the CPU.
        classes: class of each of the P rows of `sums`, `[P]` int64, on the CPU; all C in order by
            default.
        others: for parameters kept by rows: name -> per row Σ gᵢ ∘ gᵢ over the samples of all
            *other* classes, `[C, *shape[1:]]`.
        behind: number of samples in each row of `others`, `[C]` int64, on the CPU; all samples of
            other classes by default.
        columns: for factored parameters: name -> sums of columns, `[P, *shape[1:]]`.

    Raises:
        FisherError: if the shapes do not match, a count is negative, or a class with
            samples has no sums.

    Example:
        >>> fishers = ClassFishers(
        ...     {"weight": torch.tensor([[2.0], [9.0], [0.0]])}, torch.tensor([2, 3, 0])
        ... )
        >>> fishers.over([0]).values["weight"].tolist()
        [1.0]
        >>> fishers.excluding([0]).values["weight"].tolist()
        [3.0]
        >>> fishers.total().count
        5
    """

    sums: dict[str, Tensor]
    counts: Tensor
    classes: Tensor = _NOT_GIVEN
    others: dict[str, Tensor] = field(default_factory=dict)
    behind: Tensor = _NOT_GIVEN
    columns: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.counts.ndim != 1 or self.counts.dtype != torch.int64:
            raise FisherError(
                f"Expected class counts [C] of torch.int64, but got {self.counts.dtype} of shape "
                f"{list(self.counts.shape)}."
            )
        if (self.counts < 0).any():
            raise FisherError(f"Expected class counts >= 0, but got {self.counts.tolist()}.")
        if self.classes is _NOT_GIVEN:
            object.__setattr__(self, "classes", torch.arange(self.num_classes))
        if self.behind is _NOT_GIVEN:
            object.__setattr__(self, "behind", self.counts.sum() - self.counts)
        self._check_classes()
        for name, value in self.sums.items():
            if value.shape[:1] != self.classes.shape:
                raise FisherError(
                    f"Expected sums [{len(self.classes)}, ...] for parameter {name!r}, but got "
                    f"shape {list(value.shape)}."
                )
        for name, value in self.others.items():
            expected = [self.num_classes, *self.sums[name].shape[1:]] if name in self.sums else None
            if list(value.shape) != expected:
                raise FisherError(
                    f"Expected sums over other classes of shape {expected} for parameter {name!r}, "
                    f"but got {list(value.shape)}."
                )

        for name, value in self.columns.items():
            if name not in self.sums or name in self.others or self.sums[name].ndim != 2:
                raise FisherError(f"Expected sums of rows [P, o] for factored parameter {name!r}.")
            if value.shape[:1] != self.classes.shape or value.ndim < 2:
                raise FisherError(
                    f"Expected sums of columns [{len(self.classes)}, ...] for parameter {name!r}, "
                    f"but got shape {list(value.shape)}."
                )

    def __repr__(self) -> str:
        return (
            f"ClassFishers({self.num_classes} classes, {len(self.sums)} parameters, "
            f"{int(self.counts.sum())} samples)"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes `C`, with or without samples."""
        return self.counts.shape[0]

    @property
    def by_rows(self) -> bool:
        """Whether the head is kept by rows."""
        return bool(self.others)

    def over(self, classes: Iterable[int]) -> Fisher:
        """Pool some classes: the mean over all their samples, Σ n_c F_c / Σ n_c.

        Args:
            classes: class indices; repeated ones count once.

        Returns:
            The Fisher over the samples of these classes.

        Raises:
            FisherError: if a class is out of range, the classes have no sample, or the result
                needs rows that are not kept.
        """
        chosen = self._check(classes)
        count = self._count(chosen)
        whole = {c for c in range(self.num_classes) if self.counts[c]} <= set(chosen)
        if self.by_rows and not whole:
            raise FisherError(
                f"Expected the Fisher information of single classes in all rows of "
                f"{', '.join(self.others)}, but of {self.num_classes} classes only each one's own "
                "row is kept. Select in the rows of the forgotten classes only (row_scoped), or "
                "compute it from the data."
            )

        def one(name: str) -> Tensor:
            return self._mean_by_rows(name) if name in self.others else self._mean(name, chosen)

        return Fisher(self._mapped(one, chosen), count)

    def excluding(self, classes: Iterable[int], rows: Collection[int] | None = None) -> Fisher:
        """Pool all classes except some.

        Args:
            classes: class indices to leave out.
            rows: the rows of the head in use, all of left-out classes; `None` for all rows. In a
                head kept by rows all other rows are zero. Each row is then pooled over all classes
                but its own, which includes other left-out classes.

        Returns:
            The Fisher over the samples of the other classes.

        Raises:
            FisherError: as `over`.
        """
        left_out = set(self._check(classes))
        chosen = [c for c in range(self.num_classes) if c not in left_out]
        if not self.by_rows or rows is None:
            return self.over(chosen)
        count = self._count(chosen)
        if outside := sorted(set(rows) - left_out):
            raise FisherError(f"Expected rows of classes that are left out, but got {outside}.")

        def one(name: str) -> Tensor:
            if name not in self.others:
                return self._mean(name, chosen)
            other = self.others[name]
            value = torch.zeros_like(other)
            for row in rows:
                value[row] = other[row] / max(1, int(self.behind[row]))
            return value

        return Fisher(self._mapped(one, chosen), count)

    def each(
        self, classes: Iterable[int], rows: Collection[int] | None = None
    ) -> dict[int, Fisher]:
        """Return the Fisher information of single classes.

        Args:
            classes: class indices.
            rows: the rows of the head in use; `None` for all. In a head kept by rows only the
                class's own row is not zero.

        Returns:
            Class -> the Fisher over its samples, in ascending order.

        Raises:
            FisherError: as `over`.
        """
        chosen = self._check(classes)
        if not self.by_rows or rows is None:
            return {c: self.over([c]) for c in chosen}
        counts = {c: self._count([c]) for c in chosen}
        return {c: Fisher(self._own_row(c, rows), count) for c, count in counts.items()}

    def total(self) -> Fisher:
        """Pool all classes.

        Returns:
            The Fisher over all samples.

        Raises:
            FisherError: if there are no samples.
        """
        return self.over(range(self.num_classes))

    def without(self, classes: Collection[int]) -> "ClassFishers":
        """Return the sums without the samples of some classes; the input is untouched.

        In a head kept by rows, the contribution of these classes to other classes' rows remains: it
        is pooled with that of all other classes.

        Args:
            classes: class indices; their sums become zero.
        """
        gone = torch.tensor(sorted(classes), dtype=torch.int64)
        counts = self.counts.clone()
        counts[gone] = 0
        places = torch.isin(self.classes, gone)

        def cleared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            copies = {name: value.clone() for name, value in tensors.items()}
            for value in copies.values():
                value[places.to(value.device)] = 0
            return copies

        return replace(self, sums=cleared(self.sums), counts=counts, columns=cleared(self.columns))

    def class_totals(self) -> list[float]:
        """Return per class the sum over all its samples and parameters, or an upper bound.

        In the gradient of a head, the square of the own row is at least the sum of the squares of
        all other rows (r_y = -Σ_{k ≠ y} r_k).  For a head kept by rows, twice the own row's sum is
        the bound.
        """
        found = torch.zeros(self.num_classes, dtype=torch.float64)
        for name, value in self.sums.items():
            table = value.reshape(len(value), math.prod(value.shape[1:]))
            sums = table.sum(1, dtype=torch.float64).cpu()
            found.index_add_(0, self.classes, sums * (2 if name in self.others else 1))
        return [float(value) for value in found]

    def __add__(self, other: "ClassFishers") -> "ClassFishers":
        """Add the sums over other samples, such as another shard, for the same model.

        Raises:
            FisherError: if classes, parameters or shapes differ.
        """
        mine, theirs = self._shapes(), other._shapes()
        if mine != theirs:
            raise FisherError(f"Expected sums of the same shapes, but got {mine} and {theirs}.")
        classes = torch.cat([self.classes, other.classes]).unique()

        def added(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = {}
            for name, value in mine.items():
                found[name] = value.new_zeros(len(classes), *value.shape[1:])
                for part, tensor in ((self, value), (other, theirs[name])):
                    places = torch.searchsorted(classes, part.classes).to(value.device)
                    found[name].index_add_(0, places, tensor.to(value.device))
            return found

        others = {n: v + other.others[n].to(v.device) for n, v in self.others.items()}
        return ClassFishers(
            added(self.sums, other.sums),
            self.counts + other.counts.to(self.counts.device),
            classes,
            others,
            self.behind + other.behind.to(self.behind.device),
            added(self.columns, other.columns),
        )

    def _shapes(self) -> dict[str, list[int]]:
        shapes = {n: [self.num_classes, *v.shape[1:]] for n, v in self.sums.items()}
        shapes |= {f"others of {n}": [] for n in self.others}
        shapes |= {f"columns of {n}": list(v.shape[1:]) for n, v in self.columns.items()}
        return {"": list(self.counts.shape)} | shapes

    def _check(self, classes: Iterable[int]) -> list[int]:
        chosen = sorted(set(classes))
        if wrong := [c for c in chosen if not 0 <= c < self.num_classes]:
            raise FisherError(f"Expected classes in [0, {self.num_classes}), but got {wrong}.")
        return chosen

    def _check_classes(self) -> None:
        known, behind = self.classes, self.behind
        if (
            known.dtype != torch.int64
            or known.ndim != 1
            or not known.equal(known.unique())
            or (len(known) and not 0 <= int(known[0]) <= int(known[-1]) < self.num_classes)
            or self.counts[~torch.isin(torch.arange(self.num_classes), known)].any()
            or behind.dtype != torch.int64
            or behind.shape != self.counts.shape
            or (behind < 0).any()
        ):
            raise FisherError(
                f"Expected the classes of sums as ascending indices in [0, {self.num_classes}), "
                f"including each with samples, and counts of others, but got {known.tolist()[:8]}."
            )

    def _count(self, chosen: Sequence[int]) -> int:
        count = int(self.counts[list(chosen)].sum())
        if not count:
            raise FisherError(
                f"Expected classes with at least one sample, but got {list(chosen)}, which have "
                "none."
            )
        return count

    def _mean(self, name: str, chosen: Sequence[int], rows: slice = _ALL) -> Tensor:
        value, count = self.sums[name], self._count(chosen)
        places = torch.isin(self.classes, torch.tensor(chosen)).nonzero().flatten().to(value.device)
        pooled = value[places].sum(0).div_(count)
        if name not in self.columns:
            return pooled[rows]
        return product_of(pooled, self.columns[name][places].sum(0).div_(count), rows)

    def _mean_by_rows(self, name: str) -> Tensor:
        """Return the mean over all samples of a head kept by rows."""
        total = self.others[name].clone()
        total.index_add_(0, self.classes.to(total.device), self.sums[name])
        counts = (self.counts + self.behind).clamp(min=1).to(total)
        return total / counts.view(-1, *[1] * (total.ndim - 1))

    def _own_row(self, label: int, rows: Collection[int]) -> Mapping[str, Tensor]:
        place = int(torch.searchsorted(self.classes, label))

        def one(name: str) -> Tensor:
            if name not in self.others:
                return self._mean(name, [label])
            value = torch.zeros_like(self.others[name])
            if label in rows:
                value[label] = self.sums[name][place] / self._count([label])
            return value

        return self._mapped(one, [label])

    def _mapped(self, one: Callable[[str], Tensor], chosen: Sequence[int]) -> Mapping[str, Tensor]:
        """Return the value of each parameter; of factored ones when it is asked for."""
        if not self.columns:
            return {name: one(name) for name in self.sums}

        def block(name: str, rows: slice) -> Tensor:
            return self._mean(name, chosen, rows) if name in self.columns else one(name)[rows]

        shapes = {
            name: (self.sums[name].shape[1], *value.shape[1:])
            for name, value in self.columns.items()
        }
        return LazyTensors(self.sums, one, block, shapes)
