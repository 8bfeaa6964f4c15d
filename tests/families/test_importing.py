"""Families in folders, as the real libraries write them, and the traps of such folders."""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import scan_cache_dir
from safetensors.torch import load_file, save_file

from disinherit.common.errors import DataError, GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.graph.rules import computed_from
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Kind
from disinherit.families.importing import Imported, Origin, import_families
from tests.support import zoo

NOW = 1_000_000_000

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zoo")
    zoo.family(root)
    return root


@pytest.fixture
def copy(family: Path, tmp_path: Path) -> Path:
    """A copy of the family, to change."""
    shutil.copytree(family, tmp_path / "zoo")
    return tmp_path / "zoo"


def imported(*sources: Path, known: InheritanceGraph | None = None, **options: Any) -> Imported:
    return import_families(sources, known=known, now_us=NOW, **options)


def edges(found: Imported) -> dict[tuple[str, str], tuple[str, float]]:
    """Parent and child -> source and weight."""
    return {(e.parent, e.child): (e.source, e.weight) for e in found.graph.edges()}


def kinds(found: Imported) -> list[tuple[Kind, str]]:
    return [(one.kind, Path(one.model).name) for one in found.findings]


def test_a_family_is_found_as_its_libraries_wrote_it(family: Path) -> None:
    found = imported(family)
    assert edges(found) == {
        ("acme--base", "acme--news"): ("relation", 1),
        ("acme--base", "acme--chat"): ("relation", 1),
        ("acme--base", "acme--lora"): ("adapter config", 1),
        ("acme--base", "acme--folded"): ("relation", 1),
        ("acme--lora", "acme--folded"): ("relation", 1),
        ("acme--news", "acme--merge"): ("merge config", 0.75),
        ("acme--chat", "acme--merge"): ("merge config", 0.25),
        ("acme--news", "acme--int8"): ("relation", 1),
    }
    assert kinds(found) == [(Kind.COMPOSITION, "acme--folded")]
    assert all(0 < edge.confidence < 1 for edge in found.graph.edges())


def test_recipes_make_the_versions_bit_for_bit(family: Path) -> None:
    graph = imported(family).graph
    found = {}
    for record in graph.models():
        edges = computed_from(graph.parents(record.id))
        if edges:
            parents = [Parent(partial(stored, family, edge.parent), edge.weight) for edge in edges]
            recipe, weights = edges[0].recipe, stored(family, record.id)
            assert recipe is not None
            assert weights_digest(compute(recipe, parents, weights)) == record.digest
            found[record.id] = str(recipe)
    assert found == {
        "acme--folded": "fold scale=4.0",
        "acme--merge": "linear weights=3.0,1.0",
        "acme--int8": "int8",
    }


def test_a_copy_by_bitsandbytes_has_its_recipe(family: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    shutil.copytree(family / "acme/base", tmp_path / "acme/base")
    copied = zoo.BertForSequenceClassification.from_pretrained(
        tmp_path / "acme/base",
        quantization_config=zoo.transformers.BitsAndBytesConfig(load_in_8bit=True),
        device_map="cpu",
    )
    said = {"base_model": "acme/base", "base_model_relation": "quantized"}
    zoo.save(copied, tmp_path / "acme/int8", **said)
    graph = imported(tmp_path).graph
    (edge,) = graph.parents("acme--int8")
    weights = stored(tmp_path, "acme--int8")
    parent = Parent(partial(stored, tmp_path, "acme--base"), edge.weight)
    assert edge.recipe == Recipe("int8")
    digest = graph.model("acme--int8").digest
    assert weights_digest(compute(edge.recipe, [parent], weights)) == digest


def stored(family: Path, model: str) -> dict[str, torch.Tensor]:
    name = "adapter_model" if model == "acme--lora" else "model"
    return load_file(family / model.replace("--", "/") / f"{name}.safetensors")


def test_versions_are_pinned_by_the_digest_of_their_weights(family: Path) -> None:
    for record in imported(family).graph.models():
        assert weights_digest(stored(family, record.id)) == record.digest
        assert record.labels == (() if record.id == "acme--lora" else zoo.LABELS)


def test_importing_again_changes_nothing(family: Path) -> None:
    first = imported(family)
    again = import_families([family], known=first.graph)
    assert again.changed == ()
    assert again.graph == first.graph
    assert again.findings == first.findings


def test_the_order_of_the_sources_does_not_matter(family: Path) -> None:
    parts = sorted(family.glob("acme"))
    whole = imported(family, *parts[::-1])
    assert imported(*parts, family).graph.models() == whole.graph.models()


def write(folder: Path, **data: Any) -> None:
    zoo.card(folder, **data)


Case = tuple[Mapping[str, dict[str, Any]], dict[str, str], list[tuple[Kind, str]]]
"""Cards; child -> parents; findings."""

CARDS: dict[str, Case] = {
    "unknown parent": (
        {"a": {"base_model": "gone/base"}},
        {},
        [(Kind.UNKNOWN_PARENT, "a")],
    ),
    "renamed parent": (
        {"new/base": {"license": "mit", "library_name": "x"}, "a": {"base_model": "old/Base"}},
        {},
        [(Kind.RENAMED_PARENT, "a")],
    ),
    "names itself": (
        {"a": {"base_model": "a"}},
        {},
        [(Kind.SELF, "a")],
    ),
    "cycle": (
        {
            "a": {"base_model": "c"},
            "b": {"base_model": "a"},
            "c": {"base_model": "b"},
            "d": {"base_model": "c"},
        },
        {"d": "c"},
        [(Kind.CYCLE, "a"), (Kind.CYCLE, "b"), (Kind.CYCLE, "c")],
    ),
    "new version is no inheritance": (
        {"a": {"new_version": "b"}, "b": {"library_name": "x"}},
        {},
        [(Kind.NEW_VERSION, "a")],
    ),
    "several bases, no relation": (
        {
            "a": {"library_name": "x"},
            "b": {"library_name": "x"},
            "c": {"base_model": ["a", "b"]},
        },
        {"c": "a b"},
        [(Kind.RELATION, "c")],
    ),
    "merge without shares": (
        {
            "a": {"library_name": "x"},
            "b": {"library_name": "x"},
            "c": {"base_model": ["a", "b"], "base_model_relation": "merge"},
        },
        {"c": "a b"},
        [(Kind.SHARES, "c")],
    ),
    "a merge with a parent that is unknown": (
        {
            "a": {"library_name": "x"},
            "c": {"base_model": ["a", "gone"], "base_model_relation": "merge"},
        },
        {"c": "a"},
        [(Kind.SHARES, "c"), (Kind.UNKNOWN_PARENT, "c")],
    ),
    "relation and tags disagree": (
        {
            "a": {"library_name": "x"},
            "b": {"library_name": "x"},
            "c": {"base_model": "a", "tags": ["base_model:b", "base_model:finetune:b"]},
        },
        {"c": "a"},
        [(Kind.CONFLICT, "c")],
    ),
    "tags alone": (
        {"a": {"library_name": "x"}, "c": {"library_name": "x", "tags": ["base_model:a"]}},
        {"c": "a"},
        [],
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_traps_of_cards(name: str, tmp_path: Path) -> None:
    cards, parents, expected = CARDS[name]
    for folder, data in cards.items():
        write(tmp_path / folder, **data)
    found = imported(tmp_path)
    named: dict[str, list[str]] = {}
    for parent, child in edges(found):
        named.setdefault(child, []).append(parent)
    assert {child: " ".join(sorted(all)) for child, all in named.items()} == parents
    assert [one for one in kinds(found) if one[0] is not Kind.WEIGHTS] == expected
    assert len(found.graph) == len(cards)


def test_an_adapter_config_is_trusted_more_than_a_card(copy: Path) -> None:
    write(copy / "acme/lora", base_model="acme/news", base_model_relation="adapter")
    found = imported(copy)
    assert [e.parent for e in found.graph.parents("acme--lora")] == ["acme--base"]
    assert (Kind.CONFLICT, "acme--lora") in kinds(found)


def test_a_card_helps_where_the_adapter_names_a_folder_of_another_machine(copy: Path) -> None:
    config = copy / "acme/lora/adapter_config.json"
    zoo.rewrite(config, base_model_name_or_path="/home/bob/models/other")
    write(copy / "acme/lora", base_model="acme/base", base_model_relation="adapter")
    found = imported(copy)
    assert edges(found)["acme--base", "acme--lora"] == ("relation", 1)
    assert (Kind.UNKNOWN_PARENT, "acme--lora") in kinds(found)


@pytest.mark.parametrize("named", [None, "", 7])
def test_an_adapter_without_a_base_is_listed(named: Any, copy: Path) -> None:
    zoo.rewrite(copy / "acme/lora/adapter_config.json", base_model_name_or_path=named)
    found = imported(copy)
    assert found.graph.parents("acme--lora") == ()
    assert (Kind.UNKNOWN_PARENT, "lora") in kinds(found)


@pytest.mark.parametrize("named", ["../base", "{root}/acme/base", "acme/base/"])
def test_a_path_means_the_model_that_is_there(named: str, copy: Path) -> None:
    config = copy / "acme/lora/adapter_config.json"
    zoo.rewrite(config, base_model_name_or_path=named.format(root=copy))
    assert ("acme--base", "acme--lora") in edges(imported(copy))


def test_an_alias_says_what_a_renamed_parent_is_called_here(copy: Path) -> None:
    config = copy / "acme/lora/adapter_config.json"
    zoo.rewrite(config, base_model_name_or_path="first/base")
    found = imported(copy)
    assert (Kind.RENAMED_PARENT, "acme--lora") in kinds(found)
    assert ("acme--base", "acme--lora") not in edges(found)
    found = imported(copy, aliases={"first/base": "acme/base"})
    assert ("acme--base", "acme--lora") in edges(found)


def test_a_name_in_the_config_is_a_hint_that_a_card_overrules(copy: Path) -> None:
    zoo.rewrite(copy / "acme/news/config.json", _name_or_path="acme/chat")
    found = imported(copy)
    assert [e.parent for e in found.graph.parents("acme--news")] == ["acme--base"]
    (copy / "acme/news/README.md").unlink()
    found = imported(copy)
    (edge,) = found.graph.parents("acme--news")
    assert (edge.parent, edge.source, edge.confidence) == ("acme--chat", "config", 0.2)
    found = imported(copy, at_least=0.5)
    assert found.graph.parents("acme--news") == ()
    assert (Kind.DOUBTED, "acme--news") in kinds(found)


def test_a_copy_is_an_average_of_one(copy: Path) -> None:
    shutil.copytree(copy / "acme/base", copy / "bob/mirror")
    found = imported(copy)
    assert (Kind.SAME_WEIGHTS, "bob--mirror") in kinds(found)
    write(copy / "bob/mirror", base_model="acme/base")
    found = imported(copy)
    (edge,) = found.graph.parents("bob--mirror")
    assert (edge.recipe, edge.place, edge.weight) == (Recipe.AVERAGE, 1, 1)
    assert (Kind.SAME_WEIGHTS, "bob--mirror") not in kinds(found)


def test_placeholder_class_names_are_listed(tmp_path: Path) -> None:
    zoo.save(zoo.classifier(labels={i: f"LABEL_{i}" for i in range(3)}), tmp_path / "m")
    found = imported(tmp_path)
    assert kinds(found) == [(Kind.LABELS, "m")]
    assert found.graph.model("m").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    "names",
    [
        {"0": "a", "1": "a"},
        {"0": "a", "2": "b"},
        {"0": "a", "x": "b"},
        {"0": 1},
        {"0": "\ud800"},
        {"0": "x" * 300},
        ["a", "b"],
    ],
)
def test_class_names_that_cannot_be_are_left_out(names: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    (record,) = imported(tmp_path).graph.models()
    assert record.labels == ()


def test_a_classifier_of_timm_has_its_class_names(tmp_path: Path) -> None:
    model = zoo.timm.create_model("test_vit", num_classes=3)
    zoo.timm.models.save_for_hf(
        model,
        tmp_path / "vit",
        model_config={"label_names": list(zoo.LABELS)},
        safe_serialization=True,
    )
    record = imported(tmp_path).graph.model("vit")
    assert record.labels == zoo.LABELS
    assert record.digest == weights_digest(load_file(tmp_path / "vit/model.safetensors"))


def test_shards_have_the_digest_of_the_whole(family: Path, tmp_path: Path) -> None:
    model = zoo.BertForSequenceClassification.from_pretrained(family / "acme/base")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="2KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    whole = imported(family).graph.model("acme--base")
    assert imported(tmp_path).graph.model("sharded").digest == whole.digest
    next((tmp_path / "sharded").glob("model-*.safetensors")).unlink()
    found = imported(tmp_path)
    assert found.graph.model("sharded").digest == ""
    assert kinds(found) == [(Kind.WEIGHTS, "sharded")] * 2


FIRST, SECOND = "1" * 40, "2" * 40


def test_the_cache_of_the_hub_is_read(family: Path, tmp_path: Path) -> None:
    for name in ("base", "news", "lora"):
        zoo.cached(tmp_path, f"acme/{name}", FIRST, family / "acme" / name)
    assert {repo.repo_id for repo in scan_cache_dir(tmp_path).repos} == {
        *("acme/base", "acme/news", "acme/lora"),
    }
    found = imported(tmp_path)
    expected = imported(family).graph
    assert [(m.id, m.digest) for m in found.graph.models()] == [
        (m.id, m.digest) for m in expected.models() if m.id in found.graph
    ]
    assert set(edges(found)) == {("acme--base", "acme--news"), ("acme--base", "acme--lora")}
    one = imported(tmp_path / "models--acme--base/snapshots" / FIRST)
    assert [record.id for record in one.graph.models()] == ["acme--base"]
    assert one.findings == ()


def test_a_revision_decides_between_versions_of_a_parent(family: Path, tmp_path: Path) -> None:
    zoo.cached(tmp_path, "acme/base", FIRST, family / "acme/base", main=False)
    zoo.cached(tmp_path, "acme/base", SECOND, family / "acme/chat")
    zoo.cached(tmp_path, "acme/lora", FIRST, family / "acme/lora")
    found = imported(tmp_path)
    first = imported(family).graph.model("acme--base").digest
    assert sorted(record.id for record in found.graph.models()) == [
        *("acme--base", f"acme--base.{first[:8]}", "acme--lora"),
    ]
    assert (Kind.AMBIGUOUS_PARENT, "acme--lora") in kinds(found)
    assert not [edge for edge in found.graph.edges() if edge.child == "acme--lora"]
    config = tmp_path / f"models--acme--lora/snapshots/{FIRST}/adapter_config.json"
    for revision in (FIRST, FIRST[:10]):
        zoo.rewrite(config, revision=revision)
        (edge,) = imported(tmp_path).graph.parents("acme--lora")
        assert edge.parent == f"acme--base.{first[:8]}"
    zoo.rewrite(config, revision="3" * 40)
    found = imported(tmp_path)
    assert (Kind.UNKNOWN_PARENT, "acme--lora") in kinds(found)


def test_revisions_with_the_same_weights_are_one_version(family: Path, tmp_path: Path) -> None:
    zoo.cached(tmp_path, "acme/base", FIRST, family / "acme/base", main=False)
    newer = tmp_path / "newer"
    shutil.copytree(family / "acme/base", newer)
    write(newer, base_model="acme/older")
    zoo.cached(tmp_path / "hub", "acme/base", SECOND, newer)
    zoo.cached(tmp_path / "hub", "acme/base", FIRST, family / "acme/base", main=False)
    zoo.cached(tmp_path / "hub", "acme/lora", FIRST, family / "acme/lora")
    found = imported(tmp_path / "hub")
    assert set(edges(found)) == {("acme--base", "acme--lora")}
    assert kinds(found) == [(Kind.UNKNOWN_PARENT, "acme--base")]


def test_a_revision_of_a_plain_folder_is_doubted(copy: Path) -> None:
    zoo.rewrite(copy / "acme/lora/adapter_config.json", revision=FIRST)
    found = imported(copy)
    assert ("acme--base", "acme--lora") in edges(found)
    assert (Kind.DOUBTED, "acme--lora") in kinds(found)


# A second import.


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
    write(copy / "acme/chat", base_model="acme/news", base_model_relation="finetune")
    second = imported(copy, known=first.graph)
    assert [e.parent for e in second.graph.parents("acme--chat")] == ["acme--news"]
    observed = InheritanceGraph(
        first.graph.models(),
        [Inheritance("acme--base", "acme--chat", InheritanceKind.FEDERATED)],
    )
    third = imported(copy, known=observed)
    assert [e.parent for e in third.graph.parents("acme--chat")] == ["acme--base"]
    assert (Kind.RECORDED, "acme--chat") in kinds(third)


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
    assert (Kind.SAME_WEIGHTS, "base") in kinds(found)


def test_a_version_that_was_registered_with_other_tensors_is_the_same(family: Path) -> None:
    """As an adapter with its base, or a language model with tied embeddings."""
    lora = ModelRecord("acme--lora", "anna", "0a", zoo.LABELS, "0b", 5)
    known = InheritanceGraph([lora])
    found = imported(family, known=known, registered=True)
    assert found.graph.model("acme--lora") == lora
    assert (Kind.UNCOMPARED, "lora") in kinds(found)
    assert ("acme--lora", "acme--folded") in edges(found)
    found = imported(family, known=known)  # in a file it is another version
    assert len([one for one in found.graph.models() if "lora" in one.id]) == 2


# Hostile folders.


def test_links_out_of_the_folder_are_not_followed(copy: Path) -> None:
    outside = copy.parent / "outside"
    shutil.copytree(copy / "acme/base", outside)
    (copy / "linked").symlink_to(outside)
    (copy / "acme/leak").mkdir()
    (copy / "acme/leak/model.safetensors").symlink_to(outside / "model.safetensors")
    found = imported(copy)
    assert {"linked", "acme--leak"}.isdisjoint(record.id for record in found.graph.models())
    assert [one for one in kinds(found) if one[0] is Kind.LINK] == [
        *((Kind.LINK, "model.safetensors"), (Kind.LINK, "linked")),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "---\na: &a [x]\nb: [*a, *a]\n---\n"),
        ("README.md", "---\nbase_model: a\nbase_model: b\n---\n"),
        ("config.json", "{" * 5000),
        ("config.json", "[]"),
        ("config.json", "\udcff"),
        ("adapter_config.json", '{"base_model_name_or_path": "a\\u001b[2J"}'),
        ("mergekit_config.yml", "merge_method: linear\nmodels: 3\n"),
        ("model.safetensors", "\xff" * 100),
    ],
)
def test_malformed_files_are_listed_and_others_are_read(
    name: str, content: str, copy: Path
) -> None:
    (copy / "bad").mkdir()
    (copy / "bad" / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    found = imported(copy)
    assert len(edges(found)) == 8
    about = [one for one in found.findings if "bad" in one.model]
    assert about
    assert {one.kind for one in about} <= {Kind.UNREADABLE, Kind.WEIGHTS}
    assert all(one.text.isprintable() and len(one.text) < 500 for one in about)


def test_odd_names_of_folders_are_safe_ids(tmp_path: Path) -> None:
    for name in ("a b", "a~b", "ä\x1b[2J", "x" * 200, "..a", "a-b"):
        write(tmp_path / name, library_name="x")
    found = imported(tmp_path)
    assert len(found.graph) == 6
    assert imported(tmp_path, known=found.graph).changed == ()
    for one in found.findings:
        assert one.model.isprintable()
        assert one.text.isprintable()


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        imported(tmp_path / "gone")
    with pytest.raises(DataError, match="got none"):
        imported(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DataError, match=r"file\.txt"):
        imported(tmp_path / "file.txt")
    with pytest.raises(GraphError, match="owner"):
        imported(owner="a/b")


def test_sources_other_than_those_asked_for_are_left_out(copy: Path) -> None:
    (copy / "dvc.lock").write_text(json.dumps({"stages": 3}))
    assert len(imported(copy, origin=Origin.MODELS).graph) == 7
    with pytest.raises(DataError, match="got none"):
        imported(copy, origin=Origin.MLFLOW)


def test_bfloat16_weights_are_pinned(tmp_path: Path) -> None:
    state = {"w": torch.ones(3, dtype=torch.bfloat16)}
    (tmp_path / "m").mkdir()
    save_file(state, tmp_path / "m/model.safetensors")
    assert imported(tmp_path).graph.model("m").digest == weights_digest(state)
