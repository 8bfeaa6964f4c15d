"""Outside messages are bounded when converted to values, and refused in a short line."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from disinherit.common.errors import GraphError, InputError
from disinherit.common.wire.received import check_result, received_edges, received_record
from disinherit.v1 import graph_pb2 as graph
from disinherit.v1 import unlearning_pb2 as pb

MEGABYTES = 3_400_000
LONG = "x" * MEGABYTES


def make_record(**changes: Any) -> graph.ModelRecord:
    values: dict[str, Any] = {
        "id": "m",
        "owner": "anna",
        "architecture": "ab",
        "labels": ["cat", "dog"],
        "digest": "ab" * 32,
        "created_us": 7,
        "status": graph.MODEL_STATUS_ACTIVE,
    }
    return graph.ModelRecord(**{**values, **changes})


RECORDS: dict[str, dict[str, Any]] = {
    "a digest of megabytes": {"digest": "ab" * (MEGABYTES // 2)},
    "a digest that is almost as long as an audit entry": {"digest": "a" * 3_145_248},
    "a digest of another length": {"digest": "ab" * 31},
    "a Fisher digest of another length": {"fisher_digest": "0"},
    "an architecture of megabytes": {"architecture": LONG},
    "an architecture of a kilobyte": {"architecture": "x" * 1000},
    "an id of megabytes": {"id": LONG},
    "a class name of a kilobyte": {"labels": ["x" * 1000]},
    "class names of megabytes": {"labels": [f"class {i:08}" for i in range(480_000)]},
    "a data set of a kilobyte": {"provenance": graph.Provenance(dataset="x" * 1000)},
    "a sample set's digest": {"provenance": graph.Provenance(sample_set_digest="ab")},
    "a scope of megabytes": {"fisher_scale": graph.FisherScale(scope=LONG, sums=[1, 1])},
    "a scope of 5,000 characters": {"fisher_scale": graph.FisherScale(scope="x" * 5000)},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
def test_a_record_beyond_the_limits_is_refused_in_a_short_line(changes: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="^Expected ") as refused:
        received_record(make_record(**changes))
    assert len(str(refused.value)) < 400


def test_a_record_within_the_limits_is_taken() -> None:
    record = received_record(make_record(labels=[f"n{i:08}" for i in range(21_843)]))
    assert len(record.labels) == 21_843
    assert received_record(make_record(digest="")).digest == ""


def test_edges_are_bounded_in_number_and_size() -> None:
    edge = graph.Inheritance(parent="r", child="m", kind=graph.INHERITANCE_KIND_TRANSFER, weight=1)
    assert len(received_edges([edge] * 3)) == 3
    with pytest.raises(GraphError, match="parents of a model to have at most 10,000 edges"):
        received_edges([edge] * 10_001)
    edge.labels.update({f"class {i:060}": "x" for i in range(20_000)})
    with pytest.raises(GraphError, match="edges that lead to a model to have at most 1,048,576"):
        received_edges([edge])


def selection(**values: Any) -> Callable[[pb.ModelResult], None]:
    return lambda result: result.selections.add(**values).ClearField("parameter")


def number(name: str, value: float | str) -> Callable[[pb.ModelResult], None]:
    return lambda result: setattr(result, name, value)


RESULTS: dict[str, Callable[[pb.ModelResult], None]] = {
    "rows beyond 2**53": selection(rows=[0, 2**60]),
    "a total beyond 2**53": selection(total=2**61),
    "counts that sum beyond 2**53": lambda r: r.selections.extend(
        [pb.Selection(rows=[2**52]), pb.Selection(rows=[2**52])]
    ),
    "more samples than 2**53": lambda r: setattr(r.forget, "samples", 2**60),
    "a source of a kilobyte": lambda r: setattr(r.forget, "source", "x" * 1000),
    "a request's digest of another length": number("request_digest", "ab"),
    "negative rows": selection(rows=[-1]),
    "a parameter's name of a kilobyte": lambda r: r.selections.extend(
        [pb.Selection(parameter="x" * 1000)]
    ),
    "megabytes out of scope": lambda r: r.out_of_scope.extend(f"p{i:0200}" for i in range(9000)),
    "a name out of scope of a kilobyte": lambda r: r.out_of_scope.append("x" * 1000),
    "megabytes not covered": lambda r: r.not_covered.extend(f"p{i:0200}" for i in range(9000)),
    "a name not covered of a kilobyte": lambda r: r.not_covered.append("x" * 1000),
    "megabytes tied": lambda r: r.tied.extend(f"p{i:0200}" for i in range(9000)),
    "a tied name of a kilobyte": lambda r: r.tied.append("x" * 1000),
    **{
        f"{value} as {name}": number(name, value)
        for value in (math.nan, math.inf, -math.inf)
        for name in ("alpha", "lam", "gauge", "scale", "inheritance", "retain_before")
    },
    "NaN seconds": number("apply_seconds", math.nan),
}


@pytest.mark.parametrize("spoil", RESULTS.values(), ids=RESULTS)
def test_a_result_beyond_the_range_of_reports_is_refused(spoil: Callable[[Any], None]) -> None:
    result = pb.ModelResult(model_id="m", alpha=1.0)
    result.selections.add(parameter="2.weight", rows=[0, 3], total=8)
    check_result(result)
    spoil(result)
    with pytest.raises(InputError, match="^Expected ") as refused:
        check_result(result)
    assert len(str(refused.value)) < 400
