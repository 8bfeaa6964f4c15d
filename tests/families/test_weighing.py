"""Sources that disagree, and merges of which a parent is named twice, or is the model itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from disinherit.families.importing import Imported, import_families
from tests.support.light_folders import adapter, listed, model, parents, snapshot


def hint(folder: Path, base: str) -> None:
    (folder / "config.json").write_text(f'{{"_name_or_path": "{base}"}}')


def test_a_hint_is_not_taken_against_a_source_that_names_another(tmp_path: Path) -> None:
    model(tmp_path / "acme/other", 1)
    news = model(tmp_path / "acme/news", 2, base_model="zeta/unknown")
    hint(news, "acme/other")
    found = import_families([tmp_path])
    assert parents(found) == {}
    assert listed(found) == [("conflict", "acme--news"), ("unknown parent", "acme--news")]
    assert "no edge, as that is a hint" in found.findings[0].text
    (news / "README.md").unlink()
    assert parents(import_families([tmp_path])) == {"acme--news": "acme--other"}


def test_a_source_that_is_taken_in_the_place_of_a_more_trusted_one_is_listed(
    tmp_path: Path,
) -> None:
    model(tmp_path / "acme/base", 1)
    tags = ["base_model:finetune:acme/base"]
    model(tmp_path / "acme/news", 2, base_model="zeta/unknown", tags=tags)
    found = import_families([tmp_path])
    assert parents(found) == {"acme--news": "acme--base"}
    assert listed(found) == [("conflict", "acme--news"), ("unknown parent", "acme--news")]
    assert found.findings[0].text == (
        "The bases names 'zeta/unknown', the tags 'acme/base': the tags is taken."
    )


def test_a_card_does_not_overrule_the_revision_that_an_adapter_names(tmp_path: Path) -> None:
    model(snapshot(tmp_path, "acme/base", "a" * 40, "main"), 1)
    lora = adapter(snapshot(tmp_path, "acme/lora", "b" * 40, "main"), "acme/base", "c" * 40)
    (lora / "README.md").write_text("---\nbase_model: acme/base\n---\n")
    found = import_families([tmp_path])
    assert parents(found) == {}
    assert listed(found) == [("unknown parent", "acme--lora")]


def merged(root: Path, *models: tuple[str, float], **more: Any) -> Imported:
    """An import of two models and a linear merge, `m`."""
    for number, name in enumerate("ab"):
        model(root / name, number)
    parts = [{"model": name, "parameters": {"weight": weight}} for name, weight in models]
    config = {"merge_method": "linear", "models": parts, **more}
    (model(root / "m", 5) / "mergekit_config.yml").write_text(yaml.safe_dump(config))
    return import_families([root])


@pytest.mark.parametrize(
    ("models", "shares", "kinds"),
    [
        ([("a", 0.75), ("b", 0.25)], {"a": 0.75, "b": 0.25}, []),
        ([("./a", 0.5), ("a", 0.5)], {"a": 1}, ["conflict"]),
        ([("./a", 0.5), ("b", 0.25), ("a", 0.25)], {"a": 0.75, "b": 0.25}, ["conflict"]),
        ([("a", 0.5), ("m", 0.5)], {"a": 0.5}, ["names itself"]),
        ([("a", 0.5), ("a", 0.5)], {"a": 1}, ["conflict"]),
    ],
)
def test_a_merge_has_a_recipe_only_where_each_of_its_models_is_a_parent(
    models: list[tuple[str, float]], shares: dict[str, float], kinds: list[str], tmp_path: Path
) -> None:
    found = merged(tmp_path, *models)
    assert {edge.parent: edge.weight for edge in found.graph.parents("m")} == shares
    assert listed(found) == [(kind, "m") for kind in kinds]
    recipes = {edge.recipe is None for edge in found.graph.parents("m")}
    assert recipes == {bool(kinds)}


def test_a_model_of_no_weight_is_a_parent_that_the_recipe_needs(tmp_path: Path) -> None:
    found = merged(tmp_path, ("a", 1.0), ("b", 0.0))
    assert {edge.parent: edge.weight for edge in found.graph.parents("m")} == {"a": 1, "b": 1e-9}
    assert {str(edge.recipe) for edge in found.graph.parents("m")} == {"linear weights=1.0,0.0"}
    assert found.findings == ()


def test_what_the_folder_says_now_is_told_where_the_graph_has_an_edge(tmp_path: Path) -> None:
    model(tmp_path / "acme/base", 1)
    news = model(tmp_path / "acme/news", 2, base_model="acme/base")
    first = import_families([tmp_path])
    for named, told in (
        ({"base_model": "acme/gone"}, "names 'acme/gone' now, which gave no edge"),
        ({}, "names no parent now"),
    ):
        (news / "README.md").unlink()
        model(news, 2, license="mit", **named)
        again = import_families([tmp_path], known=first.graph)
        assert again.changed == ()
        assert [told in one.text for one in again.findings if "recorded" in one.kind] == [True]


@pytest.mark.parametrize(
    ("file", "content", "kinds"),
    [
        ("config.json", '{"port": 80}', []),
        ("config.json", '{"word_embedding_dimension": 8, "pooling_mode_cls_token": true}', []),
        ("config.json", '{"model_type": "bert"}', ["weights"]),
        ("config.json", '{"architecture": "resnet18", "num_classes": 3}', ["weights"]),
        ("x.gguf", "GGUF", ["unreadable"]),
        ("x.gguf", "no GGUF file, but something of this name", ["unreadable"]),
        ("x.gguf", "version https://git-lfs.github.com/spec/v1\nsize 3\n", ["unreadable"]),
    ],
)
def test_a_folder_is_a_model_by_what_its_files_are(
    file: str, content: str, kinds: list[str], tmp_path: Path
) -> None:
    base = model(tmp_path / "acme/base", 1)
    (base / "part").mkdir()
    (base / "part" / file).write_text(content)
    found = import_families([tmp_path])
    is_model = "weights" in kinds or "git-lfs" in content
    assert len(found.graph) == 1 + is_model
    assert set(kinds) <= {kind for kind, _ in listed(found)} <= {*kinds, "weights"}
    assert [record.digest != "" for record in found.graph.models()].count(True) == 1
