"""Records: refusals, and immutability."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.identifiers import check_id, check_owner
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
    as_kind,
)

MODEL = ModelRecord("m", "ann", "arch", ("cat", "dog"), "0a", 1)
END = 2**63


def model(**changes: object) -> ModelRecord:
    return dataclasses.replace(MODEL, **changes)  # type: ignore[arg-type]


def edge(weight: float) -> Inheritance:
    return Inheritance("a", "b", InheritanceKind.TRANSFER, weight)


def joined(**changes: object) -> Inheritance:
    return dataclasses.replace(edge(1.0), **changes)  # type: ignore[arg-type]


def counted(**changes: object) -> Provenance:
    return dataclasses.replace(Provenance("set"), **changes)  # type: ignore[arg-type]


def scale(**changes: object) -> FisherScale:
    return dataclasses.replace(FisherScale("head", ()), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["a", "0", "A.b_c~d-e", "a" * 128])
def test_ids_that_are_safe_as_file_names_are_kept(id: str) -> None:
    assert check_id(id) == id


@pytest.mark.parametrize("id", ["", ".a", "-a", "a/b", "a b", "a\n", "é", "a" * 129])
def test_other_ids_are_refused(id: str) -> None:
    with pytest.raises(GraphError, match="well-formed model id, 1 to 128"):
        model(id=id)
    with pytest.raises(GraphError, match="well-formed owner name, 1 to 128"):
        model(owner=id)


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "negative time": (lambda: model(created_us=-1), "created_us of model 'm' .* but got -1"),
    "time beyond int64": (lambda: model(created_us=END), f"created_us of model 'm' .* got {END}"),
    "repeated label": (lambda: model(labels=("a", "a")), "distinct class names in model 'm'"),
    "digest no hex": (lambda: model(digest="sha"), "digest of model 'm' .* but got 'sha'"),
    "digest in capitals": (lambda: model(digest="AB"), "digest of model 'm' .* but got 'AB'"),
    "digest with newline": (lambda: model(digest="ab\n"), r"digest of model 'm' .* 'ab\\n'"),
    "digits of another script": (lambda: model(digest="٣"), "digest of model 'm' .* but got '٣'"),
    "Fisher digest": (lambda: model(fisher_digest="0x1"), "fisher_digest of model 'm' .* '0x1'"),
    "sample digest": (lambda: Provenance("set", {}, "x"), "sample set digest of 'set' .* got 'x'"),
    "negative count": (lambda: Provenance("set", {"cat": -1}), "class 'cat' .* but got -1"),
    "count beyond int64": (lambda: Provenance("set", {"cat": END}), f"class 'cat' .* got {END}"),
    "NaN weight": (lambda: edge(float("nan")), "finite weight in inheritance 'a' -> 'b', .* nan"),
    "infinite weight": (lambda: edge(float("inf")), "finite weight .* but got inf"),
    "minus infinity": (lambda: edge(float("-inf")), "finite weight .* but got -inf"),
    "weight above 1": (lambda: edge(1.5), r"a weight in \(0, 1\] for .* 'a' -> 'b', but got 1.5"),
    "no weight": (lambda: edge(0.0), r"a weight in \(0, 1\] for .* but got 0"),
    "weight as text": (lambda: edge("1"), "finite weight .* but got '1'"),  # type: ignore[arg-type]
    "unknown kind": (lambda: joined(kind="cloned"), "kind of inheritance .* but got 'cloned'"),
    "list as kind": (lambda: joined(kind=[]), r"kind of inheritance .* but got \[\]"),
    "own parent": (lambda: joined(child="a"), "a parent other than the child, .* 'a' -> 'a'"),
    "number as parent": (lambda: joined(parent=3), "text as parent in inheritance .* but got 3"),
    "path as child": (lambda: joined(child="b/c"), "well-formed id of a child, .* 'b/c'"),
    "no mapping of labels": (lambda: joined(labels=["x"]), "a table as labels .* a list of 1"),
    "number as label": (lambda: joined(labels={"x": 3}), "text as labels.x .* but got 3"),
    "number as id": (lambda: model(id=3), "text as id in the record of model '3', but got 3"),
    "text as labels": (lambda: model(labels="ab"), "a list as labels in .* but got 'ab'"),
    "number as owner": (lambda: model(owner=3), "text as owner in the record of model 'm', .* 3"),
    "fraction as time": (lambda: model(created_us=1.0), "a whole number as created_us .* 1.0"),
    "text as status": (lambda: model(status="active"), "a ModelStatus as status .* 'active'"),
    "table as provenance": (lambda: model(provenance={}), "a Provenance as provenance .* a table"),
    "number as data set": (lambda: counted(dataset=3), "text as dataset in a provenance, .* got 3"),
    "text as count": (lambda: counted(samples_per_class={"x": "1"}), "whole number as .* got '1'"),
    "number as class": (lambda: counted(samples_per_class={3: 1}), "text as a key of .* got 3"),
    "text as sums": (lambda: scale(sums="12"), "a list as sums in a Fisher scale, but got '12'"),
    "number as scope": (lambda: scale(scope=3), "text as scope in a Fisher scale, but got 3"),
    "weight no float holds": (lambda: edge(10**400), "finite weight .* but got 10000"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_thing_and_the_value(name: str) -> None:
    make, reason = REFUSALS[name]
    with pytest.raises(GraphError, match=reason):
        make()


def test_values_at_the_limits_are_accepted() -> None:
    assert model(created_us=0).created_us == 0
    assert model(created_us=END - 1).created_us == END - 1
    assert Provenance("set", {"cat": END - 1, "dog": 0}).samples_per_class["cat"] == END - 1
    record = model(digest="", fisher_digest="0123456789abcdef" * 4)
    assert (record.digest, len(record.fisher_digest)) == ("", 64)


def test_mappings_are_copied_and_cannot_be_changed() -> None:
    counts, labels = {"cat": 1}, {"cat": "kitten"}
    provenance = Provenance("set", counts)
    inheritance = Inheritance("a", "b", InheritanceKind.TRANSFER, labels=labels)
    counts["cat"], labels["cat"] = 2, "dog"
    assert provenance.samples_per_class == {"cat": 1}
    assert inheritance.labels == {"cat": "kitten"}
    with pytest.raises(TypeError):
        provenance.samples_per_class["cat"] = 3  # type: ignore[index]
    with pytest.raises(TypeError):
        inheritance.labels["cat"] = "dog"  # type: ignore[index]


def test_labels_become_a_tuple() -> None:
    assert model(labels=["cat", "dog"]) == MODEL


@pytest.mark.parametrize(
    "value",
    [
        model(provenance=Provenance("set", {"cat": 2}, "ff"), status=ModelStatus.RETIRED),
        Inheritance("a", "b", InheritanceKind.TRANSFER, 0.5, {"cat": "kitten"}),
    ],
)
def test_copies_and_pickles_are_equal(value: object) -> None:
    assert copy.deepcopy(value) == value
    assert hash(copy.deepcopy(value)) == hash(value)
    assert pickle.loads(pickle.dumps(value)) == value


def test_only_averages_merge() -> None:
    merging = {kind for kind in InheritanceKind if kind.merges}
    assert merging == {InheritanceKind.FEDERATED, InheritanceKind.DISTRIBUTED}


def test_an_edge_takes_its_kind_by_name() -> None:
    assert joined(kind="transfer").kind is InheritanceKind.TRANSFER


def test_a_kind_is_found_by_its_name() -> None:
    assert as_kind("distributed") is InheritanceKind.DISTRIBUTED
    with pytest.raises(GraphError, match=r"among federated, .*, but got 'cloned'"):
        as_kind("cloned")


@pytest.mark.parametrize("name", ["anna", "owner-7", "clinic.north", "7", "console", "com10"])
def test_valid_owner_names_are_accepted(name: str) -> None:
    assert check_owner(name) == name


@pytest.mark.parametrize(
    "name", ["ANNA", "Anna", "anna.", "con", "con.txt", "aux", "com1", "lpt9.x", "nul"]
)
def test_names_that_are_one_file_elsewhere_are_refused_as_owners(name: str) -> None:
    with pytest.raises(InputError, match="owner name in lower-case") as refused:
        check_owner(name)
    assert refused.type is InputError
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    ("source", "confidence", "what"),
    [
        ("relation", 0.0, "a confidence"),
        ("relation", 1.5, "a confidence"),
        ("relation", -1.0, "a confidence"),
        ("relation", float("nan"), "a confidence"),
        ("", 0.5, "no confidence"),
        ("a\x1b[2J", 0.5, "words"),
        (" a", 0.5, "words"),
        ("a" * 65, 0.5, "words"),
        (3, 0.5, "text"),
    ],
)
def test_a_source_has_a_name_and_a_confidence(source: Any, confidence: float, what: str) -> None:
    kind = InheritanceKind.TRANSFER
    with pytest.raises(GraphError, match=what):
        Inheritance("a", "b", kind, source=source, confidence=confidence)
    edge = Inheritance("a", "b", kind, source="edge list", confidence=1)
    assert pickle.loads(pickle.dumps(edge)) == edge
