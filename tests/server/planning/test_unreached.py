"""Models that no class of a request arrives at: their reasons, and look-alike names."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.server.planning.plan import Plan, plan
from disinherit.v1 import unlearning_pb2 as pb

NFC = "caf\u00e9"
NFD = unicodedata.normalize("NFD", NFC)


def version(model_id: str, age: int, labels: Sequence[str]) -> ModelRecord:
    return ModelRecord(model_id, "anna", "aa", tuple(labels), "00", age)


def edge(parent: str, child: str, labels: Mapping[str, str] | None = None) -> Inheritance:
    return Inheritance(parent, child, InheritanceKind.TRANSFER, labels=labels or {})


def planned(
    graph: InheritanceGraph, roots: Mapping[str, Sequence[str]], scope: str = "head"
) -> Plan:
    method = Method(scope=scope).to_proto()
    asked = [pb.Root(model_id=root, classes=names) for root, names in roots.items()]
    return plan(graph, pb.UnlearningRequest(id="q", roots=asked, method=method))


def family(
    parent: Sequence[str], child: Sequence[str], mapping: Mapping[str, str] | None = None
) -> InheritanceGraph:
    return InheritanceGraph(
        [version("base", 1, parent), version("child", 2, child)], [edge("base", "child", mapping)]
    )


@pytest.mark.parametrize("scope", ["head", "all"])
@pytest.mark.parametrize(
    ("parent", "child", "proposed"),
    [
        (
            (NFC, "bar"),
            (NFD, "bar"),
            r"'cafe\u0301' looks alike: give labels={'caf\xe9': 'cafe\u0301'}",
        ),
        (("3", "4"), ("3.0", "4.0"), "'3.0' looks alike: give labels={'3': '3.0'}"),
        (("Cat", "dog"), ("cat", "dog"), "'cat' looks alike: give labels={'Cat': 'cat'}"),
        (("cat ", "dog"), ("cat", "dog"), "'cat' looks alike: give labels={'cat ': 'cat'}"),
        (("cat", "dog"), ("LABEL_0", "LABEL_1"), "LABEL_0, LABEL_1 are default names of a tool"),
    ],
)
def test_a_look_alike_name_is_proposed_and_not_used(
    parent: Sequence[str], child: Sequence[str], proposed: str, scope: str
) -> None:
    found = planned(family(parent, child), {"base": [parent[0]]}, scope)

    assert found.dampened == ("base",)
    reason = found.not_reached["child"]
    assert reason.startswith(f"none of its classes corresponds to {parent[0]!r} of base; ")
    assert proposed in reason
    assert reason.count("on the edge from base") == 1
    assert found.notes == (f"child: not reached, {reason}.",)


def test_a_mapping_reaches_a_renamed_class() -> None:
    found = planned(family((NFC, "bar"), (NFD, "bar"), {NFC: NFD}), {"base": [NFC]})
    assert found.dampened == ("base", "child")
    assert not found.not_reached
    assert found.notes == ()


def test_a_name_that_another_class_arrives_under_is_not_proposed() -> None:
    # "A" of the child is "A" of the base, and not its "a", which the child dropped.
    found = planned(family(("a", "A", "b"), ("A", "b")), {"base": ["a"]})
    assert "alike" not in found.not_reached["child"]
    assert "there is nothing to forget in its head" in found.not_reached["child"]


def test_one_look_alike_of_two_classes_is_enough() -> None:
    # Half of it would be forgotten, and the model counted as one that forgot.
    found = planned(family(("Cat", "dog", "owl"), ("cat", "dog", "owl")), {"base": ["Cat", "dog"]})
    assert found.not_reached["child"].startswith(
        "no class corresponds to 'Cat' of base; 'cat' looks"
    )


def test_a_dropped_class_of_two_is_ignored() -> None:
    found = planned(family(("cat", "dog", "owl"), ("dog", "owl")), {"base": ["cat", "dog"]})
    assert not found.not_reached
    assert found.dampened == ("base", "child")


def test_other_classes_in_a_new_head_leave_nothing_to_forget_there() -> None:
    graph = family(("cat", "dog"), ("ant", "bee"))
    head = planned(graph, {"base": ["cat"]})
    assert head.not_reached["child"] == (
        "none of its classes corresponds to 'cat' of base: its label space has other classes, "
        "there is nothing to forget in its head"
    )
    deep = planned(graph, {"base": ["cat"]}, "all")
    assert deep.dampened == ("base",), "below the head, too, no class of its own would show it"
    assert deep.not_reached["child"] == (
        f"{head.not_reached['child']}, and no class of its own would show what it forgot below it"
    )
    assert deep.notes == (f"child: not reached, {deep.not_reached['child']}.",)


def test_the_reason_names_the_model_that_lost_the_class() -> None:
    graph = InheritanceGraph(
        [
            version("base", 1, (NFC, "bar")),
            version("middle", 2, (NFD, "bar")),
            version("last", 3, (NFD, "bar")),
            version("again", 4, (NFC, "bar")),
        ],
        [edge("base", "middle"), edge("middle", "last"), edge("middle", "again")],
    )
    found = planned(graph, {"base": [NFC]}).not_reached
    assert found["middle"].endswith("on the edge from base")
    assert found["last"].endswith("on the edge where middle lost it")
    assert found["again"].endswith(
        f"which middle already lost: its own {NFC!r} counts as learned anew"
    )


def test_one_reaching_root_is_enough() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog")),
            version("s", 2, ("2", "dog")),
            version("m", 3, ("2", "dog")),
        ],
        [edge("r", "m"), edge("s", "m")],
    )
    found = planned(graph, {"r": ["cat"], "s": ["2"]})
    assert found.dampened == ("r", "s", "m")


def test_samples_reach_a_model_with_any_classes() -> None:
    graph = family(("cat", "dog"), ("ant", "bee"))
    method = Method().to_proto()
    asked = pb.Root(model_id="base", samples=["0" * 64], sample_salt="0" * 32)
    found = plan(graph, pb.UnlearningRequest(id="q", roots=[asked], method=method))
    assert found.dampened == ("base", "child")


def trained(record: ModelRecord, *classes: str) -> ModelRecord:
    return replace(record, provenance=Provenance("points", dict.fromkeys(classes, 9)))


@pytest.mark.parametrize("scope", ["head", "all"])
def test_a_missing_class_may_have_a_default_name_of_a_tool(
    scope: str,
) -> None:
    found = planned(family(("a", "b", "c"), ("a", "LABEL_1", "c")), {"base": ["a", "b"]}, scope)
    assert found.dampened == ("base",)
    assert found.not_reached["child"].startswith("no class corresponds to 'b' of base; LABEL_1 ")


def test_a_class_of_unknown_origin_is_noted_for_a_missing_class() -> None:
    labels = ("a", "zebra", "c")
    graph = InheritanceGraph(
        [
            version("base", 1, ("a", "b", "c")),
            version("child", 2, labels),
            trained(version("heir", 3, labels), "c"),
            trained(version("other", 4, labels), "zebra"),
        ],
        [edge("base", "child"), edge("child", "heir"), edge("base", "other")],
    )
    found = planned(graph, {"base": ["a", "b"]})
    assert found.dampened == ("base", "child", "heir", "other")
    assert found.notes == (
        "child, heir: no class corresponds to 'b' of base, and 'zebra' may be the "
        "same class: no training provenance is recorded. Register it, or give labels={...} on the "
        "edge to map the class.",
    )
    mapped = family(("a", "b", "c"), labels, {"b": "zebra"})
    assert planned(mapped, {"base": ["a", "b"]}).notes == ()
    assert planned(graph, {"base": ["a"]}).notes == ()


def test_a_class_of_unexplained_origin_may_be_the_missing_class() -> None:
    labels = ("a", "zebra", "c")
    child, heir = trained(version("child", 2, labels), "c"), trained(version("heir", 3, labels))
    graph = InheritanceGraph(
        [version("base", 1, ("a", "b", "c")), child, heir],
        [edge("base", "child"), edge("child", "heir")],
    )
    found = planned(graph, {"base": ["a", "b"]})
    assert found.dampened == ("base",)
    for model in ("child", "heir"):
        assert "zebra: it was not trained on it, and no parent" in found.not_reached[model]
    # With the mapping it is reached; and where it was trained on, it is a class of its own.
    mapped = family(("a", "b", "c"), labels, {"b": "zebra"})
    assert planned(mapped, {"base": ["a", "b"]}).dampened == ("base", "child")
    known = InheritanceGraph(
        [version("base", 1, ("a", "b", "c")), trained(child, "zebra"), heir],
        [edge("base", "child"), edge("child", "heir")],
    )
    assert planned(known, {"base": ["a", "b"]}).dampened == ("base", "child", "heir")
