"""Updates of a Flower round: tensors, contributions, shares and provenance."""

import math
from collections.abc import Mapping, Sequence

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Strategy,
)
from torch import Tensor

from disinherit.common.errors import InputError, LabelError
from disinherit.common.graph.records import Provenance

SAMPLES_KEY = "samples-per-class"
"""Entry of a train reply: number of training samples of each class, in the order of the labels."""

DATASET_KEY = "dataset"
"""Entry of a train reply: name of the data set."""

_WEIGHTED = (FedAvg, FedAvgM, FedAdam, FedAdagrad, FedYogi)


def tensors(arrays: ArrayRecord) -> dict[str, Tensor]:
    """Copy arrays to a state dict, in their order.

    Raises:
        TypeError: if PyTorch has no data type for an array.
    """
    return {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}


def arrays_of(reply: RecordDict, strategy: Strategy) -> tuple[ArrayRecord, object] | None:
    """Return an update's arrays and its weight in the average; `None` without arrays.

    Args:
        reply: content of a train reply.
        strategy: the strategy, which defines the keys.
    """
    inner = innermost(strategy)
    key = getattr(inner, "arrayrecord_key", "arrays")
    weighted_by = getattr(inner, "weighted_by_key", "num-examples")
    records = dict(reply.array_records)
    if not records:
        return None
    weights = (metrics.get(weighted_by) for metrics in dict(reply.metric_records).values())
    return records.get(key, next(iter(records.values()))), next(weights, None)


def shares(weights: Sequence[object], strategy: Strategy) -> list[float]:
    """Return each contribution's share of an aggregate; the shares sum to 1.

    Missing or invalid weights give equal shares.  So does a weight of 0, unless the strategy is
    known to ignore such an update: then its share is 0.

    Example:
        >>> shares([30, 10], FedAvg())
        [0.75, 0.25]
    """
    values = [w if isinstance(w, int | float) else math.nan for w in weights]
    total = sum(values)
    weighted = type(innermost(strategy)).aggregate_train in [s.aggregate_train for s in _WEIGHTED]
    valid = total > 0 and math.isfinite(total) and all(value >= 0 for value in values)
    if not valid or not (weighted or all(values)):
        return [1 / len(values) for _ in values]
    return [value / total for value in values]


def averages_only(strategy: Strategy) -> bool:
    """Return whether a strategy's aggregate is known to be exactly the weighted mean.

    Example:
        >>> from flwr.serverapp.strategy import FedMedian
        >>> averages_only(FedAvg()), averages_only(FedMedian())
        (True, False)
    """
    method = type(strategy).aggregate_train
    plain = isinstance(strategy, FedAvgM) and not strategy.server_opt
    return method is FedAvg.aggregate_train or (plain and method is FedAvgM.aggregate_train)


def class_names(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return `"0"`, `"1"`, ... for the rows of the last matrix, assumed to be the head.

    Args:
        state: tensors by name, in the order of the layers.

    Raises:
        LabelError: if no tensor is a matrix.

    Example:
        >>> class_names({"head.weight": torch.zeros(3, 8), "head.bias": torch.zeros(3)})
        ('0', '1', '2')
    """
    matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
    if not matrices:
        raise LabelError(
            f"Expected a matrix whose rows are the classes, but got only {sorted(state)}; give the "
            "class names as labels."
        )
    return tuple(map(str, range(len(matrices[-1]))))


def provenance_of(reply: RecordDict, labels: Sequence[str]) -> Provenance | None:
    """Return the training provenance that an update reports; `None` if it reports none.

    Args:
        reply: content of a train reply.
        labels: class names in the order of the counts.

    Raises:
        InputError: if the counts do not fit the labels.
    """
    records: list[ConfigRecord | MetricRecord] = [*reply.config_records.values()]
    for record in [*records, *reply.metric_records.values()]:
        counts = record.get(SAMPLES_KEY)
        if counts is None:
            continue
        given = counts if isinstance(counts, list) else []
        whole = [count for count in given if isinstance(count, int)]
        if not len(whole) == len(given) == len(labels):
            raise InputError(
                f"Expected {SAMPLES_KEY!r} to be one whole number for each of {len(labels)} "
                f"classes, but got {counts!r}."
            )
        dataset = str(record.get(DATASET_KEY, ""))
        return Provenance(dataset, dict(zip(labels, whole, strict=True)))
    return None


def innermost(strategy: Strategy) -> Strategy:
    """Return the innermost strategy of wrappers such as differential privacy."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return strategy
