"""Plans of requests: refusals, upstream roots, class names along edges, notes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import GraphError, LabelError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.server.planning.plan import Plan, check_plan, plan
from disinherit.simulations.scenario.scenarios import FEDERATED
from disinherit.simulations.scenario.topology import Topology
from disinherit.v1 import unlearning_pb2 as pb

LABELS = ("cat", "dog", "owl", "yak")


def method(**changes: Any) -> pb.Method:
    """A message, which may make no sense."""
    message = Method().to_proto()
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def request(roots: Mapping[str, Sequence[str]], **changes: Any) -> pb.UnlearningRequest:
    return pb.UnlearningRequest(
        id="forget",
        roots=[pb.Root(model_id=root, classes=classes) for root, classes in roots.items()],
        method=method(**changes),
    )


def version(
    model_id: str,
    created_us: int,
    labels: Sequence[str] = LABELS,
    trained_on: Sequence[str] = (),
) -> ModelRecord:
    provenance = Provenance("pets", dict.fromkeys(trained_on, 5)) if trained_on else None
    return ModelRecord(model_id, "anna", "aa", tuple(labels), "00", created_us, provenance)


def transfer(parent: str, child: str, **labels: str) -> Inheritance:
    return Inheritance(parent, child, InheritanceKind.TRANSFER, labels=labels)


def unlearned(parent: str, child: str) -> Inheritance:
    return Inheritance(parent, child, InheritanceKind.UNLEARNED)


def graph_of(topology: Topology, trained_on: Mapping[str, Sequence[str]]) -> InheritanceGraph:
    graph = InheritanceGraph()
    for age, derivation in enumerate(topology.derivations):
        record = version(derivation.id, age, trained_on=trained_on.get(derivation.id, ()))
        graph.add(record, topology.edges(derivation))
    return graph


def chain(*labels: Sequence[str]) -> InheritanceGraph:
    """m0 -> m1 -> ..., each with its label space."""
    return InheritanceGraph(
        [version(f"m{age}", age, names) for age, names in enumerate(labels)],
        [transfer(f"m{age}", f"m{age + 1}") for age in range(len(labels) - 1)],
    )


def renaming_at(planned: Plan, model: str, root: str) -> dict[str, str | None]:
    (group,) = [group for group in planned.groups if model in group.models]
    return dict(group.renamings[group.roots.index(root)])


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "mean"}, "reference to be one of retain, all, but got 'mean'"),
        ({"reference": ""}, "reference to be one of"),
        ({"merge": "median"}, "merge to be one of max, mean, sum, but got 'median'"),
        ({"alpha": 0.0}, "alpha > 0, but got 0"),
        ({"alpha": float("nan")}, "alpha > 0, but got nan"),
        ({"alpha": float("inf")}, "alpha > 0, but got inf"),
        ({"alpha": 3.5e38}, r"alpha > 0, but got 3.5e\+38, which is more than float32 holds"),
        ({"lam": 1e300}, r"lambda > 0, but got 1e\+300, which is more than float32 holds"),
        ({"lam": -1.0}, "lambda > 0, but got -1"),
        ({"exponent": 1e39}, r"exponent > 0, but got 1e\+39, which is more than float32 holds"),
        ({"exponent": 0.0}, "exponent > 0, but got 0"),
        ({"bound": 0.0}, "bound > 0, but got 0"),
        ({"bound": 1.5}, "bound <= 1, but got 1.5"),
        ({"gauge": -0.5}, "gauge >= 0, but got -0.5"),
        ({"gauge": float("inf")}, "gauge >= 0, but got inf"),
        ({"gauge": 1e39}, r"gauge >= 0, but got 1e\+39, which is more than float32 holds"),
        ({"repair_steps": 10_001}, "at most 10000 repair steps, but got 10001"),
        ({"min_inheritance": 1.5}, "least similarity from 0 to 1, but got 1.5"),
        ({"scope": ""}, "scope 'head', 'all' or parameter-name globs, but got nothing"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Method(**changes)
    with pytest.raises(RequestError, match=message):
        Method.from_proto(method(**changes))
    with pytest.raises(RequestError, match=message):
        plan(chain(LABELS), request({"m0": ["cat"]}, **changes))


@pytest.mark.parametrize(
    "changes", [{}, {"alpha": 0.1, "lam": 5.0, "gauge": 0.0}, {"bound": 0.5, "reference": "all"}]
)
def test_a_sensible_method_is_accepted(changes: dict[str, Any]) -> None:
    assert Method.from_proto(method(**changes)) == Method(**changes).settled(by_class=True)


def test_a_request_needs_roots_and_classes_and_must_leave_some() -> None:
    graph = chain(LABELS)
    with pytest.raises(RequestError, match="at least one root"):
        plan(graph, request({}))
    with pytest.raises(RequestError, match="classes to forget at root 'm0', but got none"):
        plan(graph, request({"m0": []}))
    with pytest.raises(RequestError, match="at least one class of 'm0' to remain"):
        plan(graph, request({"m0": LABELS}))


def test_an_unknown_root_or_class_is_refused() -> None:
    with pytest.raises(GraphError, match="'m7'"):
        plan(chain(LABELS), request({"m7": ["cat"]}))
    with pytest.raises(LabelError, match="class 1 of the 1 given ones, of 3 char"):
        plan(chain(LABELS), request({"m0": ["ant"]}))


def test_a_root_named_twice_is_refused() -> None:
    twice = request({"m0": ["cat"]})
    twice.roots.append(twice.roots[0])
    with pytest.raises(RequestError, match="every root once, but got m0, m0"):
        plan(chain(LABELS), twice)


@pytest.mark.parametrize("request_id", ["", "a/b", "x" * 129])
def test_a_request_id_must_be_safe_as_a_file_name(request_id: str) -> None:
    asked = request({"m0": ["cat"]})
    asked.id = request_id
    with pytest.raises(RequestError, match="request id"):
        plan(chain(LABELS), asked)


# --- upstream roots


def test_each_model_gets_exactly_its_own_upstream_roots() -> None:
    planned = plan(graph_of(FEDERATED, {}), request({"r1": ["cat"], "r2": ["dog"]}))

    assert planned.affected == ("r1", "r2", "r3", "r4", "r6")
    assert {group.roots: group.models for group in planned.groups} == {
        ("r1",): ("r1",),
        ("r1", "r2"): ("r2", "r3", "r4", "r6"),
    }
    assert not planned.exempt
    assert not planned.failed


def test_a_descendant_of_one_root_does_not_wait_for_the_other() -> None:
    planned = plan(graph_of(FEDERATED, {}), request({"s": ["cat"], "r3": ["dog"]}))
    assert {group.roots: group.models for group in planned.groups} == {
        ("s",): ("s", "r1", "r2", "r4"),
        ("s", "r3"): ("r3", "r6"),
    }


@given(st.data())
def test_groups_cover_the_affected_models_once_with_their_upstream_roots(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(1, 8))
    graph = InheritanceGraph()
    for age in range(size):
        parents = data.draw(st.sets(st.integers(0, age - 1))) if age else set()
        graph.add(version(f"m{age}", age), [transfer(f"m{p}", f"m{age}") for p in sorted(parents)])
    roots = data.draw(st.sets(st.sampled_from([f"m{age}" for age in range(size)]), min_size=1))

    planned = plan(graph, request(dict.fromkeys(sorted(roots), ("cat",))))

    assert sorted(m for group in planned.groups for m in group.models) == sorted(planned.affected)
    assert planned.affected == graph.affected(roots)
    for group in planned.groups:
        for model in group.models:
            assert set(group.roots) == graph.upstream_roots(model, roots)
    assert len({group.roots for group in planned.groups}) == len(planned.groups)


# --- versions that unlearning made


def test_a_superseded_version_is_exempt_and_its_successor_is_planned() -> None:
    graph = InheritanceGraph(
        [version("r", 1), version("m", 2), version("r~old", 3)],
        [transfer("r", "m"), unlearned("r", "r~old")],
    )
    planned = plan(graph, request({"r": ["cat"]}))
    assert planned.affected == ("r", "m", "r~old")
    assert planned.exempt == {"r": "superseded by r~old, which is unlearned in its place"}
    (group,) = planned.groups
    assert (group.roots, group.models) == (("r",), ("m", "r~old"))


def test_a_successor_as_root_includes_descendants_of_its_origin() -> None:
    graph = InheritanceGraph(
        [
            version("base", 1),
            version("child", 2),
            version("base~a", 3),
            version("child~a", 4),
            version("base~a~b", 5),
            version("new", 6),
        ],
        [
            transfer("base", "child"),
            unlearned("base", "base~a"),
            unlearned("child", "child~a"),
            unlearned("base~a", "base~a~b"),
            transfer("base~a~b", "new"),
        ],
    )
    planned = plan(graph, request({"base~a~b": ["dog"]}))
    assert planned.affected == ("base", "child", "base~a", "child~a", "base~a~b", "new")
    assert planned.exempt.keys() == {"base", "child", "base~a"}
    (group,) = planned.groups
    assert (group.roots, group.models) == (("base~a~b",), ("child~a", "base~a~b", "new"))
    assert planned.notes[0].startswith("base~a~b was unlearned from base~a, base: models derived")

    made = graph.children("child~a")
    assert made == ()
    graph.add(version("child~a~q", 7), [unlearned("child~a", "child~a~q")])
    again = plan(graph, request({"base~a~b": ["dog"]}), cleansed={"child~a~q"})
    assert again.affected == planned.affected


def test_successors_of_the_request_are_not_affected_and_their_origins_not_exempt() -> None:
    graph = InheritanceGraph(
        [version("r", 1), version("m", 2), version("r~forget", 3), version("n", 4)],
        [transfer("r", "m"), unlearned("r", "r~forget"), transfer("r~forget", "n")],
    )
    planned = plan(graph, request({"r": ["cat"]}), cleansed={"r~forget"})
    assert planned.affected == ("r", "m")
    assert not planned.exempt


def test_no_class_passes_along_an_edge_of_the_same_request() -> None:
    # r~forget is clean of r, and inherits from m, which knows the class under another name.
    other = ("kitten", "cat")
    graph = InheritanceGraph(
        [version("r", 1, ("cat", "dog")), version("m", 2, other), version("r~forget", 3, other)],
        [
            transfer("r", "m", cat="kitten"),
            unlearned("r", "r~forget"),
            transfer("m", "r~forget"),
        ],
    )
    planned = plan(graph, request({"r": ["cat"]}), cleansed={"r~forget"})
    assert "r~forget" in planned.affected
    assert not planned.failed
    assert renaming_at(planned, "r~forget", "r") == {"cat": "kitten"}


# --- class names along edges


def test_models_with_the_same_names_share_a_group() -> None:
    planned = plan(chain(LABELS, LABELS, (*LABELS, "ant")), request({"m0": ["cat"]}))
    (group,) = planned.groups
    assert group.models == ("m0", "m1", "m2")
    assert group.renamings == ((),)


def test_a_class_is_followed_through_two_renamings() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog")),
            version("m", 2, ("kitten", "dog")),
            version("n", 3, ("feline", "dog")),
        ],
        [transfer("r", "m", cat="kitten"), transfer("m", "n", kitten="feline")],
    )
    planned = plan(graph, request({"r": ["cat"]}))
    assert renaming_at(planned, "r", "r") == {}
    assert renaming_at(planned, "m", "r") == {"cat": "kitten"}
    assert renaming_at(planned, "n", "r") == {"cat": "feline"}


def test_two_classes_may_swap_their_names() -> None:
    graph = InheritanceGraph(
        [version("r", 1, ("cat", "dog")), version("m", 2, ("cat", "dog"))],
        [transfer("r", "m", cat="dog", dog="cat")],
    )
    planned = plan(graph, request({"r": ["cat"]}))
    assert renaming_at(planned, "m", "r") == {"cat": "dog", "dog": "cat"}


def test_a_class_that_arrives_under_two_names_cannot_be_unlearned() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog")),
            version("m", 2, ("kitten", "dog")),
            version("n", 3, ("kitten", "cat", "dog")),
            version("o", 4, ("kitten", "dog")),
        ],
        [
            transfer("r", "m", cat="kitten"),
            transfer("r", "n"),
            transfer("m", "n"),
            transfer("n", "o"),
        ],
    )
    planned = plan(graph, request({"r": ["cat"]}))
    assert planned.failed.keys() == {"n"}
    assert "class 'cat' of root r arrives both as 'cat' and as 'kitten'" in planned.failed["n"]
    # Further down only one of the two names is left.
    assert renaming_at(planned, "o", "r") == {"cat": "kitten"}


def test_contradictory_names_upstream_fail_downstream_too() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog")),
            version("m", 2, ("kitten", "dog")),
            version("n", 3, ("kitten", "cat", "dog")),
            version("o", 4, ("kitten", "cat", "dog")),
        ],
        [
            transfer("r", "m", cat="kitten"),
            transfer("r", "n"),
            transfer("m", "n"),
            transfer("n", "o"),
        ],
    )
    assert plan(graph, request({"r": ["cat"]})).failed.keys() == {"n", "o"}


def test_two_classes_under_one_name_cannot_be_unlearned() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog")),
            version("m", 2, ("pet", "dog")),
            version("n", 3, ("cat", "pet")),
            version("o", 4, ("pet",)),
        ],
        [
            transfer("r", "m", cat="pet"),
            transfer("r", "n", dog="pet"),
            transfer("m", "o"),
            transfer("n", "o"),
        ],
    )
    planned = plan(graph, request({"r": ["cat"]}))
    assert planned.failed == {
        "o": "classes 'cat' and 'dog' of root r both arrive as 'pet': correct the label mappings"
    }


def test_a_class_learned_anew_is_not_the_lost_class_of_its_name() -> None:
    graph = chain(("ant", "cat", "dog"), ("ant", "dog", "owl"), ("ant", "cat", "dog"))
    planned = plan(graph, request({"m0": ["ant", "cat"]}, scope="all"))
    assert renaming_at(planned, "m1", "m0") == {}
    lost = renaming_at(planned, "m2", "m0")["cat"]
    assert lost not in ("ant", "cat", "dog")
    # Where no other class arrives, the model is not reached.
    alone = plan(graph, request({"m0": ["cat"]}, scope="all"))
    assert alone.not_reached.keys() == {"m1", "m2"}


# --- notes


def test_the_notes_name_directly_trained_models_that_are_not_reached() -> None:
    graph = graph_of(FEDERATED, {"d": ["cat", "owl"], "r1": ["cat"], "r4": ["cat"], "r6": ["owl"]})
    notes = plan(graph, request({"r1": ["cat"]})).notes
    assert len(notes) == 2
    assert notes[0].startswith("d was trained directly on cat, ")
    assert notes[1].startswith("r4 also trained directly on classes to forget")
    assert notes[1].endswith(
        "dampened as descendants, with the Fisher information of the given roots."
    )
    noted = plan(graph, request({"r1": ["cat"]}, mechanism="delta", scope="all")).notes
    assert noted[1].endswith("changed as descendants, by the changes of the given roots.")


def test_the_notes_name_a_descendant_of_roots_with_other_targets() -> None:
    # r1 is to forget cats only, and knows dogs from its own data: r2's dogs are not those.
    graph = graph_of(FEDERATED, {"r1": ["cat", "dog"], "r2": ["dog"]})
    notes = plan(graph, request({"r1": ["cat"], "r2": ["dog"]})).notes
    assert len(notes) == 1
    assert notes[0].startswith("r1 was trained directly on dog, ")


def test_the_notes_follow_a_renamed_class() -> None:
    graph = InheritanceGraph(
        [
            version("r", 1, ("cat", "dog"), ["cat"]),
            version("m", 2, ("kitten", "dog"), ["kitten"]),
        ],
        [transfer("r", "m", cat="kitten")],
    )
    (note,) = plan(graph, request({"r": ["cat"]})).notes
    assert note.startswith("m also trained directly")


def test_there_are_no_notes_if_only_the_roots_know_the_class() -> None:
    graph = graph_of(FEDERATED, {"r1": ["cat"], "r2": ["owl"]})
    assert plan(graph, request({"r1": ["cat"]})).notes == ()


# --- a plan that does nothing


def test_a_plan_without_any_model_to_dampen_is_refused_with_every_reason() -> None:
    check_plan(plan(chain(LABELS), request({"m0": ["cat"]})))
    nothing = Plan(("m", "n"), (), {"m": "is exempt"}, {"n": "is broken"}, ())
    with pytest.raises(GraphError, match="m is exempt; n is broken"):
        check_plan(nothing)


@pytest.mark.parametrize(("scope", "meant"), [("heed", "head"), ("haed", "head"), ("al", "all")])
def test_a_misspelt_scope_is_refused_with_a_suggestion(scope: str, meant: str) -> None:
    with pytest.raises(RequestError, match=f"got '{scope}'. Write '{meant}'"):
        Method(scope=scope)


@pytest.mark.parametrize("scope", ["head", "all", "head.*", "weight", "0.*,head.bias", "*head*"])
def test_a_scope_with_parameter_names_is_accepted(scope: str) -> None:
    assert Method(scope=scope).scope == scope


def test_what_earlier_requests_made_of_a_client_leaves_with_it() -> None:
    graph = InheritanceGraph()
    graph.add(version("root", 1, trained_on=["cat"]), [])
    graph.add(version("child", 2), [transfer("root", "child")])
    graph.add(version("root~before", 3), [unlearned("root", "root~before")])
    graph.add(version("child~before", 4), [unlearned("child", "child~before")])
    leaves = pb.UnlearningRequest(
        id="leaves",
        client="anna",
        roots=[pb.Root(model_id="root")],
        method=Method(mechanism="delta", scope="all").to_proto(),
    )
    planned = plan(graph, leaves)
    assert planned.exempt["root~before"].endswith("is to be forgotten: retire it")
    assert [group.models for group in planned.groups] == [("child~before",)]
