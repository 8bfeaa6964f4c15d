"""Records: refusals, and immutability."""

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
    as_kind,
    check_id,
    check_owner,
)

MODEL = ModelRecord("m", "ann", "arch", ("cat", "dog"), "0a", 1)
END = 2**63


def model(**changes: object) -> ModelRecord:
    return dataclasses.replace(MODEL, **changes)  # type: ignore[arg-type]


def edge(weight: float) -> Inheritance:
    return Inheritance("a", "b", InheritanceKind.TRANSFER, weight)


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
    assert pickle.loads(pickle.dumps(value)) == value


def test_only_averages_merge() -> None:
    merging = {kind for kind in InheritanceKind if kind.merges}
    assert merging == {InheritanceKind.FEDERATED, InheritanceKind.DISTRIBUTED}


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
