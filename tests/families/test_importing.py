"""Families in folders, as the real libraries write them, and the traps of such folders."""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir
from safetensors.torch import load_file

from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.rules import computed_from
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Kind
from disinherit.families.importing import import_families
from disinherit.families.merges import LEAST_SHARE
from tests.support import zoo
from tests.support.zoo import edges, imported, kinds, stored

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_family_is_found_as_its_libraries_wrote_it(family: Path) -> None:
    found = imported(family)
    assert edges(found) == {
        ("acme--base", "acme--news"): ("relation", 1),
        ("acme--base", "acme--chat"): ("relation", 1),
        ("acme--base", "acme--lora"): ("adapter config", 1),
        ("acme--base", "acme--folded"): ("relation", LEAST_SHARE),  # it comes through the adapter
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
        zoo.card(tmp_path / folder, **data)
    found = imported(tmp_path)
    named: dict[str, list[str]] = {}
    for parent, child in edges(found):
        named.setdefault(child, []).append(parent)
    assert {child: " ".join(sorted(all)) for child, all in named.items()} == parents
    assert [one for one in kinds(found) if one[0] is not Kind.WEIGHTS] == expected
    assert len(found.graph) == len(cards)


def test_an_adapter_config_is_trusted_more_than_a_card(copy: Path) -> None:
    zoo.card(copy / "acme/lora", base_model="acme/news", base_model_relation="adapter")
    found = imported(copy)
    assert [e.parent for e in found.graph.parents("acme--lora")] == ["acme--base"]
    assert (Kind.CONFLICT, "acme--lora") in kinds(found)


def test_a_card_helps_where_the_adapter_names_a_folder_of_another_machine(copy: Path) -> None:
    config = copy / "acme/lora/adapter_config.json"
    zoo.rewrite(config, base_model_name_or_path="/home/bob/models/other")
    zoo.card(copy / "acme/lora", base_model="acme/base", base_model_relation="adapter")
    found = imported(copy)
    assert edges(found)["acme--base", "acme--lora"] == ("relation", 1)
    assert (Kind.UNKNOWN_PARENT, "acme--lora") in kinds(found)


@pytest.mark.parametrize("named", [None, "", 7])
def test_an_adapter_without_a_base_is_listed(named: Any, copy: Path) -> None:
    zoo.rewrite(copy / "acme/lora/adapter_config.json", base_model_name_or_path=named)
    found = imported(copy)
    assert found.graph.parents("acme--lora") == ()
    assert (Kind.UNKNOWN_PARENT, "acme--lora") in kinds(found)


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
    zoo.card(copy / "bob/mirror", base_model="acme/base")
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
    zoo.card(newer, base_model="acme/older")
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
