"""Rules for registrations: names, versions of others, and facts registered first."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from disinherit.common.errors import GraphError, InputError, LabelError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import (
    FisherScale,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    Provenance,
)
from disinherit.server.store.audit_events import owner_actor
from tests.support.campaign import World, copy
from tests.support.owner import LABELS

OPERATOR = "operator:op"


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    with copy(built, tmp_path / "world") as world:
        yield world


def version(id: str, owner: str = "anna") -> ModelRecord:
    return ModelRecord(id, owner, "x", LABELS, "0a", 1)


def child_of(parent: str, id: str, kind: InheritanceKind = InheritanceKind.TRANSFER) -> Inheritance:
    return Inheritance(parent, id, kind)


@pytest.mark.parametrize("actor", ["owner:anna", "owner:ben", OPERATOR])
def test_ids_of_successors_cannot_be_registered(world: World, actor: str) -> None:
    owner = actor.partition(":")[2] if actor != OPERATOR else "anna"
    with pytest.raises(GraphError, match="id without '~' for a new model, but got 'r2~q1'"):
        world.store.register(version("r2~q1", owner), [], actor=actor)
    assert "r2~q1" not in world.store.graph()


def test_an_agent_registers_what_unlearning_made_of_its_owners_versions_only(world: World) -> None:
    world.store.add_model(version("r1~q1"))
    for id, owner in (("r2~q1", "anna"), ("r1~q2", "ben"), ("nothing~q", "anna")):
        with pytest.raises(GraphError, match="named after a model of owner"):
            world.store.add_model(version(id, owner))
    long = "m" * 127
    world.store.add_model(version(long, "ben"))
    cut = f"{long[:95]}~{'0f' * 16}"
    world.store.add_model(version(cut, "ben"))
    with pytest.raises(GraphError, match="named after a model of owner 'anna'"):
        world.store.add_model(replace(version(cut), id=f"{long[:95]}~{'1f' * 16}"))


def test_parents_of_a_known_version_come_from_its_owner(world: World) -> None:
    world.store.register(version("X", "ben"), [], actor="owner:ben")
    before = world.knowledge()
    for actor in (OPERATOR, "approver:ap", "owner:anna"):
        with pytest.raises(GraphError, match="known without any, from its owner 'ben'"):
            world.store.register(version("X", "ben"), [child_of("r1", "X")], actor=actor)
    assert world.knowledge() == before
    world.store.register(version("X", "ben"), [child_of("r1", "X")], actor="owner:ben")
    assert [edge.parent for edge in world.store.graph().parents("X")] == ["r1"]


def test_unlearned_edge_of_another_owner_is_refused(world: World) -> None:
    edge = child_of("r1", "mine", InheritanceKind.UNLEARNED)
    for owner, actor in (("ben", "owner:ben"), ("anna", OPERATOR)):
        with pytest.raises(GraphError, match="unlearned: only a model.s own owner"):
            world.store.register(version("mine", owner), [edge], actor=actor)
    assert "mine" not in world.store.graph()


ABOUT_PARENTS = {
    "nobody's": child_of("no-such-model", "mine"),
    "another's, with a mapping that does not fit": Inheritance(
        "ben-secret", "mine", InheritanceKind.TRANSFER, 1.0, {"no class": "cat"}
    ),
    "another's, with a mapping to nowhere": Inheritance(
        "ben-secret", "mine", InheritanceKind.TRANSFER, 1.0, {"hiv-positive": "no class"}
    ),
}


def test_an_owner_gets_one_answer_about_a_parent_that_is_not_its_own(world: World) -> None:
    secret = replace(version("ben-secret", "ben"), labels=("hiv-positive", "hiv-negative"))
    world.store.register(secret, [], actor="owner:ben")
    told = set()
    for edge in ABOUT_PARENTS.values():
        with pytest.raises(GraphError) as refused:
            world.store.register(version("mine"), [edge], actor="owner:anna")
        assert "hiv" not in str(refused.value).replace("'hiv-positive': 'no class'", "")
        told.add(str(refused.value).replace(edge.parent, "it"))
    assert len(told) == 1
    # Of its own it gets to know what is wrong.
    wrong = Inheritance("r1", "mine", InheritanceKind.TRANSFER, 1.0, {"no class": "cat"})
    with pytest.raises(InputError, match="from classes of the source"):
        world.store.register(version("mine"), [wrong], actor="owner:anna")


SCALE = FisherScale("head", (1.0, 2.0, 3.0, 4.0))
FIRST = replace(
    version("m"),
    fisher_digest="0f",
    fisher_scale=SCALE,
    provenance=Provenance("pets", {"cat": 5, "dog": 7}),
)


@pytest.mark.parametrize("actor", [owner_actor("anna"), OPERATOR])
def test_first_registered_scale_stays_until_a_new_summary(world: World, actor: str) -> None:
    first, _ = world.store.register(FIRST, [], actor=actor)
    silent = replace(FIRST, fisher_digest="", fisher_scale=None, provenance=None)
    assert world.store.register(silent, [], actor=actor) == (first, False)
    for other in (
        replace(FIRST, fisher_scale=FisherScale("head", (1e6, 2e6, 3e6, 4e6))),
        replace(FIRST, fisher_digest="", fisher_scale=FisherScale("all", (1.0, 2.0, 3.0, 4.0))),
        replace(FIRST, provenance=Provenance("pets", {"cat": 5, "dog": 70})),
    ):
        with pytest.raises(GraphError, match="to stay as it was registered first"):
            world.store.register(other, [], actor=actor)
    assert world.store.records(["m"])["m"] == first
    summarised = replace(FIRST, fisher_digest="1f", fisher_scale=None)
    assert world.store.register(summarised, [], actor=actor)[0].fisher_scale is None


def test_numbers_of_values_are_added_once_and_stay(world: World) -> None:
    actor = owner_actor("anna")
    counted, more = (replace(FIRST, fisher_scale=replace(SCALE, values=v)) for v in (60, 61))
    world.store.register(FIRST, [], actor=actor)  # as an agent of 0.1.0 does
    assert world.store.register(counted, [], actor=actor)[0].fisher_scale == counted.fisher_scale
    assert world.store.register(FIRST, [], actor=actor)[0].fisher_scale == counted.fisher_scale
    with pytest.raises(GraphError, match="to stay as it was registered first"):
        world.store.register(more, [], actor=actor)


def test_scale_of_a_summary_is_logged(world: World) -> None:
    world.store.register(FIRST, [], actor=OPERATOR)
    line = list(world.store.audit_lines())[-1]
    assert b'"fisher_scale":"10.0","fisher_scope":"head"' in line


def test_labels_have_to_be_as_many_as_a_parent_with_the_same_tensors_has(world: World) -> None:
    parent = world.store.graph().model("r1")
    edge = child_of("r1", "mine")
    wrong = replace(version("mine"), labels=LABELS[:2], architecture=parent.architecture)
    for actor in ("owner:anna", OPERATOR):
        with pytest.raises(
            LabelError, match=r"as many labels of model 'mine' as of 'r1'.* 2 and 4"
        ):
            world.store.register(wrong, [edge], actor=actor)
    assert "mine" not in world.store.graph()
    world.store.register(replace(wrong, labels=tuple("abcd")), [edge], actor="owner:anna")
    other = replace(wrong, id="cut", architecture="another")
    world.store.register(other, [child_of("r1", "cut")], actor="owner:anna")


def test_an_adapter_that_was_imported_says_what_to_register_first(world: World) -> None:
    """Its owner's version has the tensors of its base, too; its file does not."""
    graph = InheritanceGraph([world.store.graph().model("r1")])
    read = replace(child_of("r1", "lora"), source="adapter config", confidence=0.95)
    graph.add(replace(version("lora"), created_us=graph.model("r1").created_us + 1), [read])
    assert world.store.add_imported(graph, ["lora"], actor=OPERATOR) == []
    whole = replace(graph.model("lora"), digest="0b")
    before = world.knowledge()
    for register in (
        lambda: world.store.register(whole, [], actor=owner_actor("anna")),
        lambda: world.store.add_model(whole),
    ):
        with pytest.raises(GraphError, match="`disinherit model withdraw lora`.*import again"):
            register()
    assert world.knowledge() == before
