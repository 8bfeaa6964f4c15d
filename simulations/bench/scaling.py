"""How the time of unlearning grows with a request, beside that of retraining.

The *work* of a case is what its retraining does: samples x epochs x parameters, summed over the
models that are retrained.  Cases of one request at several sizes have labels `REQUEST, size N`.
CPU seconds are taken, as these differ least on a machine that others use, too.

A law is a power of the work, fitted to the points by least squares of logarithms.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from disinherit.common.errors import InputError
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.means import RETRAINING

_LABEL = re.compile(r"(.+), size (\d+)")

WANTED = 100.0
"""How many times less time than retraining is looked for."""


@dataclass(frozen=True, slots=True)
class ScaleSize:
    """One size of a request.

    Attributes:
        request: what is forgotten.
        number: of the size, from 1.
        case: name of the case.
        network: name of the network.
        parameters: of a model.
        epochs: of a training.
        samples: model -> samples that it is retrained on, of all that are.
        forgotten: samples to forget, where these were chosen.
        work: samples x epochs x parameters of all models.
    """

    request: str
    number: int
    case: str
    network: str
    parameters: int
    epochs: int
    samples: Mapping[str, int]
    forgotten: int
    work: float


@dataclass(frozen=True, slots=True)
class Timed:
    """A method at one size.

    Attributes:
        size: the size.
        method: its label.
        retraining: CPU seconds of retraining.
        seconds: CPU seconds of the request, without set-up.
        setup: CPU seconds of what was done when the models were trained.
        bound: what the ratio cannot exceed, as roots are trained again; `None` for no such bound.
    """

    size: ScaleSize
    method: str
    retraining: float
    seconds: float
    setup: float
    bound: float | None

    @property
    def ratio(self) -> float:
        """How many times less time than retraining the request took."""
        return self.retraining / self.seconds

    @property
    def whole_ratio(self) -> float:
        """The same, with the set-up, as if it were made for this request alone."""
        return self.retraining / (self.seconds + self.setup)


@dataclass(frozen=True, slots=True)
class Law:
    """`factor * work ** power`.

    Attributes:
        factor: the value at a work of 1.
        power: by how much the logarithm grows with that of the work.
        miss: by what share of itself a point is off the law at most.
    """

    factor: float
    power: float
    miss: float

    def __call__(self, work: float) -> float:
        """Return the value at a work."""
        return float(self.factor * work**self.power)

    def reaches(self, value: float) -> float | None:
        """Return the work from which on a growing law has a value; `None` if it does not grow."""
        if self.power <= 0:
            return None
        return math.exp(math.log(value / self.factor) / self.power)


def fit(points: Sequence[tuple[float, float]]) -> Law:
    """Return the law through points.

    Args:
        points: two or more (work, value), all above 0, of different work.

    Example:
        >>> law = fit([(1.0, 2.0), (10.0, 20.0), (100.0, 200.0)])
        >>> round(law.factor, 6), round(law.power, 6), round(law.reaches(1000.0))
        (2.0, 1.0, 500)
    """
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle, mean = (math.fsum(values) / len(logs) for values in zip(*logs, strict=True))
    spread = math.fsum((x - middle) ** 2 for x, _ in logs)
    power = math.fsum((x - middle) * (y - mean) for x, y in logs) / spread
    factor = math.exp(mean - power * middle)
    miss = max(abs(y / (factor * x**power) - 1) for x, y in points)
    return Law(factor, power, miss)


@dataclass(frozen=True, slots=True)
class Growth:
    """A method over the sizes of a request.

    Attributes:
        request: what is forgotten.
        method: its label.
        timed: by size, at least two.
    """

    request: str
    method: str
    timed: tuple[Timed, ...]

    def law(self, value: Callable[[Timed], float], points: int | None = None) -> Law:
        """Return the law of a value.

        Args:
            value: of a method at one size.
            points: take only so many, the smallest; all by default.
        """
        return fit([(one.size.work, value(one)) for one in self.timed[:points]])

    @property
    def bound(self) -> float | None:
        """The bound of the ratio at the largest size."""
        return self.timed[-1].bound


def sizes_of(references: Sequence[Record]) -> dict[str, ScaleSize]:
    """Return the sizes of a run by the name of their case.

    Args:
        references: of the run.

    Raises:
        InputError: if there is none, or a reference does not say what its models were trained on.
    """
    found = {}
    for reference in references:
        label = _LABEL.fullmatch(reference["label"])
        if label is None:
            continue
        if any("parameters" not in model for model in reference["models"].values()):
            raise InputError(
                f"Expected samples and parameters of each model of case {reference['case']}, but "
                "an older Disinherit measured it. Run the suite again in another folder."
            )
        settings = reference["declaration"]["settings"]
        epochs = settings["epochs"]
        retrained = {n: model for n, model in reference["models"].items() if not model["gone"]}
        found[reference["case"]] = ScaleSize(
            request=label[1],
            number=int(label[2]),
            case=reference["case"],
            network=settings["network"],
            parameters=max(model["parameters"] for model in retrained.values()),
            epochs=epochs,
            samples={name: model["samples"] for name, model in retrained.items()},
            forgotten=reference["declaration"].get("samples", 0),
            work=math.fsum(m["samples"] * epochs * m["parameters"] for m in retrained.values()),
        )
    if not found:
        raise InputError(
            "Expected cases with labels such as 'class, size 1', but the run has none. Give a run "
            "of suite scale, or of one like it."
        )
    return dict(sorted(found.items(), key=lambda one: (one[1].request, one[1].number)))


def growths_of(references: Sequence[Record], cells: Sequence[Record]) -> list[Growth]:
    """Return every method over the sizes of every request, where it was measured at two or more.

    Args:
        references: of a run.
        cells: of the run.

    Raises:
        InputError: if nothing was measured beside retraining at two sizes.
    """
    sizes = sizes_of(references)
    whole = {c["case"]: c["cpu_seconds"] for c in cells if _ran(c) and c["name"] == RETRAINING}
    timed: dict[tuple[str, str], list[Timed]] = {}
    order = list(dict.fromkeys(cell["method"] for cell in cells))
    for cell in cells:
        size = sizes.get(cell["case"])
        if size is None or not _ran(cell) or cell["name"] == RETRAINING or size.case not in whole:
            continue
        setup = cell["setup_cpu_seconds"]
        one = Timed(
            size,
            cell["method"],
            whole[size.case],
            cell["cpu_seconds"] - setup,
            setup,
            _bound(cell, size),
        )
        timed.setdefault((size.request, cell["method"]), []).append(one)
    growths = [
        Growth(request, method, tuple(sorted(found, key=lambda one: one.size.work)))
        for (request, method), found in timed.items()
        if len(found) > 1
    ]
    if not growths:
        raise InputError(
            "Expected a method and retraining at two sizes of a request, but the run has no such "
            "cells. Run the rest of the suite."
        )
    requests = list(dict.fromkeys(size.request for size in sizes.values()))
    return sorted(growths, key=lambda g: (requests.index(g.request), order.index(g.method)))


def _ran(cell: Record) -> bool:
    return cell["not_applicable"] is None


def _bound(cell: Record, size: ScaleSize) -> float | None:
    """Return what the ratio cannot exceed where roots are trained again.

    Retraining trains each model once.  A replay trains its root twice: without the samples, and
    with all of them, which must give the present weights bit for bit.
    """
    replayed = [
        2 * size.samples[root] + size.forgotten
        for root, made in cell["chosen"].items()
        if isinstance(made, dict)
        and root in size.samples
        and made.get("changes", {}).get(root, [""])[0] == "replay"
    ]
    return sum(size.samples.values()) / sum(replayed) if replayed else None
