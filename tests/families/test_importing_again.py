"""A second import: what has changed since, and what stays as it was recorded."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Kind
from tests.support import zoo
from tests.support.zoo import edges, imported, kinds

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_parent_that_comes_later_is_put_before_its_child(copy: Path) -> None:
    shutil.move(copy / "acme/base", copy.parent / "aside")
    first = imported(copy)
    assert (Kind.UNKNOWN_PARENT, "acme--news") in kinds(first)
    shutil.move(copy.parent / "aside", copy / "acme/base")
    second = imported(copy, known=first.graph)
    assert set(edges(second)) == set(edges(imported(copy)))
    assert "acme--base" in second.changed
    kept = {record.id: record.created_us for record in first.graph.models()}
    assert kept.items() <= {m.id: m.created_us for m in second.graph.models()}.items()
    assert imported(copy, known=second.graph).changed == ()


def test_other_weights_are_another_version_and_old_edges_stay(copy: Path) -> None:
    first = imported(copy)
    zoo.save(zoo.classifier(7), copy / "acme/base")
    second = imported(copy, known=first.graph)
    digest = weights_digest(load_file(copy / "acme/base/model.safetensors"))
    assert second.changed == (f"acme--base.{digest[:8]}",)
    assert second.graph.edges() == first.graph.edges()
    assert (Kind.RECORDED, "acme--news") in kinds(second)
    assert imported(copy, known=second.graph).changed == ()


def test_a_card_that_changes_updates_the_edges_of_an_import_only(copy: Path) -> None:
    first = imported(copy)
    zoo.card(copy / "acme/chat", base_model="acme/news", base_model_relation="finetune")
    second = imported(copy, known=first.graph)
    assert [e.parent for e in second.graph.parents("acme--chat")] == ["acme--news"]
    observed = InheritanceGraph(
        first.graph.models(),
        [Inheritance("acme--base", "acme--chat", InheritanceKind.FEDERATED)],
    )
    third = imported(copy, known=observed)
    assert [e.parent for e in third.graph.parents("acme--chat")] == ["acme--base"]
    assert (Kind.RECORDED, "acme--chat") in kinds(third)


def test_an_edge_that_its_folder_says_no_more_stays_and_is_listed(copy: Path) -> None:
    first = imported(copy)
    assert Kind.RECORDED not in {kind for kind, _ in kinds(first)}
    (copy / "acme/chat/README.md").unlink()
    second = imported(copy, known=first.graph)
    assert second.changed == ()
    assert second.graph.edges() == first.graph.edges()
    (found,) = [one for one in second.findings if one.kind is Kind.RECORDED]
    assert (found.model, "acme--base by its relation" in found.text) == ("acme--chat", True)


def test_an_id_that_was_shortened_is_no_name(tmp_path: Path) -> None:
    zoo.card(tmp_path / "häuser/base", library_name="x")
    zoo.card(tmp_path / "child", base_model="h-user--base")
    first = imported(tmp_path)
    assert "h-user--base" in first.graph
    second = imported(tmp_path, known=first.graph)
    assert first.graph.edges() == second.graph.edges() == ()
    assert (Kind.UNKNOWN_PARENT, "child") in kinds(second)


def test_weights_that_come_later_pin_the_version(copy: Path) -> None:
    weights = copy / "acme/base/model.safetensors"
    shutil.move(weights, copy.parent / "aside")
    first = imported(copy)
    assert first.graph.model("acme--base").digest == ""
    shutil.move(copy.parent / "aside", weights)
    second = imported(copy, known=first.graph)
    assert second.changed == ("acme--base",)
    assert second.graph.model("acme--base").digest
    assert imported(copy, known=second.graph).changed == ()
    weights.unlink()  # a checkout without its weights says nothing else of them
    assert imported(copy, known=second.graph).changed == ()


def test_registered_weights_are_the_same_version_under_another_name(family: Path) -> None:
    whole = imported(family).graph
    base = whole.model("acme--base")
    registered = InheritanceGraph(
        [ModelRecord("r1", "anna", base.architecture, base.labels, base.digest, 5)]
    )
    found = imported(family, known=registered)
    assert {edge.parent for edge in found.graph.edges()} >= {"r1"}
    assert "acme--base" not in found.graph
    assert found.graph.model("r1") == registered.model("r1")
    assert (Kind.SAME_WEIGHTS, "r1") in kinds(found)


def test_a_version_that_was_registered_with_other_tensors_is_the_same(family: Path) -> None:
    """As an adapter with its base, or a language model with tied embeddings."""
    lora = ModelRecord("acme--lora", "anna", "0a", zoo.LABELS, "0b", 5)
    known = InheritanceGraph([lora])
    found = imported(family, known=known, registered=True)
    assert found.graph.model("acme--lora") == lora
    assert (Kind.UNCOMPARED, "acme--lora") in kinds(found)
    assert ("acme--lora", "acme--folded") in edges(found)
    found = imported(family, known=known)  # in a file it is another version
    assert len([one for one in found.graph.models() if "lora" in one.id]) == 2
