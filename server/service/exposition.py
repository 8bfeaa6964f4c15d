"""Figures in the text format of Prometheus, version 0.0.4 (prometheus.io/docs/instrumenting)."""

import bisect
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
"""Name and value of each label."""


@dataclass(frozen=True, slots=True)
class MetricSample:
    """A figure.

    Attributes:
        suffix: what its name has after that of its family, such as `_total`.
        labels: its labels.
        value: the figure.
    """

    suffix: str
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """Figures of one name.

    Attributes:
        name: the name.
        kind: `gauge`, `counter` or `histogram`.
        text: what they are, in one line.
        samples: the figures.
    """

    name: str
    kind: str
    text: str
    samples: Sequence[MetricSample]


def gauge(name: str, text: str, values: Mapping[str, float], label: str = "") -> MetricFamily:
    """Return a family of present values.

    Args:
        name: its name.
        text: what it is.
        values: value of the label -> figure; without a label only that of `""`.
        label: name of the label; `""` for none.
    """
    samples = [
        MetricSample("", ((label, value),) if label else (), figure)
        for value, figure in values.items()
    ]
    return MetricFamily(name, "gauge", text, samples)


def exposed(families: Iterable[MetricFamily]) -> bytes:
    r"""Return the lines of families.

    Example:
        >>> exposed([gauge("models", "Versions.", {"": 3})])
        b'# HELP models Versions.\n# TYPE models gauge\nmodels 3\n'
    """
    return "".join(_lines(families)).encode()


def _lines(families: Iterable[MetricFamily]) -> Iterator[str]:
    for family in families:
        yield f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
        for sample in family.samples:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels)
            shown = f"{{{labels}}}" if labels else ""
            yield f"{family.name}{sample.suffix}{shown} {float(sample.value):.15g}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Counter:
    """A number of events by labels; thread-safe.

    Args:
        name: its name, which ends with `_total`.
        text: what it counts.
        labels: names of its labels.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *values: str) -> None:
        """Count an event with the values of its labels."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + 1

    def family(self) -> MetricFamily:
        """Return the present numbers."""
        with self._lock:
            counts = sorted(self._counts.items())
        samples = [
            MetricSample("", tuple(zip(self._labels, values, strict=True)), count)
            for values, count in counts
        ]
        return MetricFamily(self._name, "counter", self._text, samples)


class Histogram:
    """Durations by one label; thread-safe.

    Args:
        name: its name.
        text: what it measures.
        label: name of its label.
        bounds: upper bounds of its buckets in seconds, ascending.
        values: values of the label that are there from the beginning.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        bounds: Sequence[float],
        values: Iterable[str] = (),
    ) -> None:
        self._name, self._text, self._label, self._bounds = name, text, label, tuple(bounds)
        self._lock = threading.Lock()
        self._numbers: dict[str, list[int]] = {value: self._empty() for value in values}
        self._sums: dict[str, float] = dict.fromkeys(self._numbers, 0.0)

    def add(self, value: str, seconds: float) -> None:
        """Add a duration with the value of its label."""
        place = bisect.bisect_left(self._bounds, seconds)
        with self._lock:
            self._numbers.setdefault(value, self._empty())[place] += 1
            self._sums[value] = self._sums.get(value, 0.0) + seconds

    def family(self) -> MetricFamily:
        """Return the present numbers."""
        with self._lock:
            found = [(one, list(self._numbers[one]), self._sums[one]) for one in self._numbers]
        samples = []
        for value, numbers, total in sorted(found):
            mine = (self._label, value)
            below = 0
            for bound, number in zip((*self._bounds, float("inf")), numbers, strict=True):
                below += number
                shown = "+Inf" if bound == float("inf") else f"{bound:g}"
                samples.append(MetricSample("_bucket", (mine, ("le", shown)), below))
            samples.append(MetricSample("_sum", (mine,), total))
            samples.append(MetricSample("_count", (mine,), below))
        return MetricFamily(self._name, "histogram", self._text, samples)

    def _empty(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)
