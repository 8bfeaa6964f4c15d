"""Conversion of outside messages to values, checked against the limits.

Content of a store was checked on arrival, and is read by `disinherit.common.graph.proto`.  Messages
from an owner, an agent or a caller are converted here.
"""

import math
import operator
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message

from disinherit.common import limits
from disinherit.common.errors import GraphError, InputError, RequestError
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.graph.proto import inheritance_from_proto, record_from_proto
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.common.models.scope_text import split_scope
from disinherit.common.text import one_line
from disinherit.v1.graph_pb2 import Inheritance as InheritanceProto
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult, Selection, UnlearningRequest

_FINITE = (
    "alpha",
    "lam",
    "gauge",
    "scale",
    "inheritance",
    "retain_before",
    "retain_after",
    "fisher_seconds",
    "tune_seconds",
    "apply_seconds",
)
_figures = operator.attrgetter(*_FINITE)


def received_record(message: RecordProto) -> ModelRecord:
    """Return the version in a message from outside.

    Raises:
        GraphError: if it exceeds the limits of a record, or a value is malformed.
    """
    what = f"the record of model {limits.shown(message.id)}"
    limits.RECORD.check(message.ByteSize(), what, GraphError)
    check_owner(message.owner, GraphError)
    limits.check_digest(message.digest, f"the digest of {what}", GraphError)
    limits.check_digest(message.fisher_digest, f"the Fisher digest of {what}", GraphError)
    sample_set = message.provenance.sample_set_digest
    limits.check_digest(sample_set, f"the sample set digest of {what}", GraphError)
    return record_from_proto(message)


def received_edges(messages: Sequence[InheritanceProto]) -> list[Inheritance]:
    """Return the edges in messages from outside.

    Raises:
        GraphError: if there are too many, or a value is malformed.
    """
    limits.PARENTS.check_items(messages, "the parents of a model", GraphError)
    limits.RECORD.check(_bytes(messages), "the edges that lead to a model", GraphError)
    return [inheritance_from_proto(message) for message in messages]


def check_result(result: ModelResult) -> None:
    """Check an owner's result for a model, except the successor (`received_record`).

    Raises:
        InputError: if it exceeds a limit, a number is not finite, or a count is negative or above
            what every JSON reader keeps.
    """
    what = f"the result of model {limits.shown(result.model_id)}"
    limits.RESULT.check(result.ByteSize(), what)
    limits.PARAMETERS.check_items(result.selections, f"the selections in {what}")
    for parameters, which in (
        (result.out_of_scope, "parameters out of scope"),
        (result.not_covered, "parameters not covered"),
        (result.tied, "tied parameters"),
    ):
        if parameters:
            limits.PARAMETERS.check_items(parameters, f"the {which} in {what}")
            limits.check_names(parameters, f"{what}: the parameter")
    for selection in result.selections:
        _check_selection(selection, what)
    counted = sum(sum(selection.rows) for selection in result.selections)
    of = sum(selection.total for selection in result.selections)
    forget = result.forget
    for count in (counted, of, result.retain_samples, forget.samples):
        _check_count(count, what)
    limits.check_digest(result.request_digest, f"the request's digest in {what}")
    limits.check_names([forget.measure, forget.source], f"{what}: the measure")
    limits.PARENTS.check_items(result.deltas, f"the changes of roots in {what}")
    for delta in result.deltas:
        limits.check_names([delta.root, delta.root_method], f"{what}: the root and its method")
        limits.check_digest(delta.packet, f"the packet's digest in {what}")
        for requests in (delta.repeats, delta.line.requests, delta.replaces):
            limits.PARENTS.check_items(requests, f"the repeated requests in {what}")
            limits.check_names([*requests], f"{what}: the repeated request", limits.ID)
        for digest in (delta.before, delta.after):
            limits.check_digest(digest, f"the digest of a root's weights in {what}")
        limits.REASON.check_text(delta.note, f"the note on a change of a root in {what}")
        for value in (delta.coefficient, delta.applied, delta.measured):
            if not math.isfinite(value):
                raise InputError(f"Expected finite shares of changes in {what}, but got {value}.")
    for name, value in zip(_FINITE, _figures(result), strict=True):
        if not math.isfinite(value):
            raise InputError(f"Expected a finite {name} in {what}, but got {value}.")


def received_request(message: UnlearningRequest) -> UnlearningRequest:
    """Return the request in a message from outside; its reason is one line.

    Raises:
        RequestError: if it exceeds a limit.
    """
    limits.REASON.check_text(message.reason, "the reason of a request", RequestError)
    limits.ID.check_text(message.id, "the id of a request", RequestError)
    check_sample_count(sum(len(root.samples) for root in message.roots))
    limits.REQUEST.check(message.ByteSize(), "a request", RequestError)
    for root in message.roots:
        what = f"at root {limits.shown(root.model_id)}"
        limits.CLASSES.check_items(root.classes, f"the classes {what}", RequestError)
        for name in root.classes:  # not quoted: it may be the id of a sample
            limits.NAME.check_text(name, f"the name of a class {what}", RequestError)
    split_scope(message.method.scope)
    cleaned = UnlearningRequest()
    cleaned.CopyFrom(message)
    cleaned.reason = one_line(message.reason)
    return cleaned


def check_sample_count(count: int) -> None:
    """Check the number of samples in a request.

    Raises:
        RequestError: if there are too many.
    """
    if count > limits.SAMPLES.most:
        raise RequestError(
            f"Expected at most {limits.SAMPLES.most} samples in one request, but got {count}. "
            "Split the list."
        )


def _check_selection(selection: Selection, what: str) -> None:
    limits.check_names([selection.parameter], f"{what}: the parameter")
    where = f"{what}, parameter {limits.shown(selection.parameter)}"
    limits.ROWS.check_items(selection.rows, f"the rows in {where}")
    for count in (min(selection.rows, default=0), max(selection.rows, default=0), selection.total):
        _check_count(count, where)


def _check_count(count: int, where: str) -> None:
    if not 0 <= count <= limits.NUMBER.most:
        raise InputError(
            f"Expected counts of values from 0 to 2**53 - 1 in {where}, but got {count}."
        )


def _bytes(messages: Iterable[Message]) -> int:
    return sum(message.ByteSize() for message in messages)
