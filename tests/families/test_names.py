"""Which model a name means: exactly the one that has it, and none that it might mean."""

from pathlib import Path

import pytest

from disinherit.common.errors import DataError
from disinherit.families.importing import import_families
from tests.support.light_folders import adapter, listed, model, parents, snapshot

OLD, NEW = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("neighbours", "named"),
    [
        (["acme/gpt2"], "gpt2"),  # the hub has one of that name
        (["acme/news/base", "acme/base"], "base"),
        (["acme/news/base"], "base"),
        (["acme/other/gpt2"], "other/gpt2"),
    ],
)
def test_a_neighbour_with_the_same_end_is_listed_and_not_taken(
    neighbours: list[str], named: str, tmp_path: Path
) -> None:
    for number, name in enumerate(neighbours):
        model(tmp_path / name, number)
    model(tmp_path / "acme/news", 9, base_model=named)
    found = import_families([tmp_path])
    assert parents(found) == {}
    assert listed(found) == [("renamed parent?", "acme--news")]
    assert all(repr(name) in found.findings[0].text for name in neighbours)


@pytest.mark.parametrize("named", ["./base", "../base", "acme/../acme/base"])
def test_a_path_that_says_so_means_the_model_that_is_there(named: str, tmp_path: Path) -> None:
    model(tmp_path / "acme/base", 1)
    model(tmp_path / "acme/news", 2, base_model=named)
    assert parents(import_families([tmp_path])) == {"acme--news": "acme--base"}


def test_a_path_that_may_mean_two_models_is_ambiguous(tmp_path: Path) -> None:
    model(tmp_path / "acme/base", 1)
    model(tmp_path / "acme/news/base", 2)
    model(tmp_path / "acme/news", 3, base_model="./base")
    found = import_families([tmp_path])
    assert parents(found) == {}
    assert listed(found) == [("ambiguous parent", "acme--news")]


def test_an_id_of_the_import_is_a_name_from_the_first_time_on(tmp_path: Path) -> None:
    model(tmp_path / "acme/base", 1)
    model(tmp_path / "acme/news", 2, base_model="acme--base")
    first = import_families([tmp_path])
    assert parents(first) == {"acme--news": "acme--base"}
    again = import_families([tmp_path], known=first.graph)
    assert again.changed == ()
    assert again.findings == first.findings


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", OLD, OLD[:10]])
def test_branches_and_tags_of_the_cache_are_revisions(revision: str, tmp_path: Path) -> None:
    tag = [] if revision.startswith("aaa") else [revision]
    model(snapshot(tmp_path, "acme/base", OLD, *tag), 1)
    model(snapshot(tmp_path, "acme/base", NEW, "main"), 2)
    adapter(snapshot(tmp_path, "acme/lora", OLD, "main"), "acme/base", revision)
    found = import_families([tmp_path])
    (edge,) = found.graph.edges()
    assert edge.parent.startswith("acme--base.")
    assert found.findings == ()


def test_main_is_the_branch_as_it_is_now_and_that_is_listed(tmp_path: Path) -> None:
    model(snapshot(tmp_path, "acme/base", OLD), 1)
    model(snapshot(tmp_path, "acme/base", NEW, "main"), 2)
    adapter(snapshot(tmp_path, "acme/lora", OLD, "main"), "acme/base", "main")
    found = import_families([tmp_path])
    assert parents(found) == {"acme--lora": "acme--base"}
    assert listed(found) == [("doubted", "acme--lora")]


def test_a_tag_that_the_cache_does_not_have_is_not_said_to_be_missing(tmp_path: Path) -> None:
    model(snapshot(tmp_path, "acme/base", OLD, "main"), 1)
    adapter(snapshot(tmp_path, "acme/lora", OLD, "main"), "acme/base", "v2")
    found = import_families([tmp_path])
    assert parents(found) == {}
    (finding,) = found.findings
    assert finding.text.endswith("nothing here says that it is revision 'v2'.")


def test_findings_name_versions_by_their_ids(tmp_path: Path) -> None:
    model(tmp_path / "acme/news", 1, base_model="b", base_model_relation="Finetune")
    (tmp_path / "acme/news/config.json").write_text("{")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/config.json").write_text("{")
    found = import_families([tmp_path])
    assert listed(found) == [
        ("relation unknown", "acme--news"),
        ("unknown parent", "acme--news"),
        ("unreadable", str(tmp_path / "alone/config.json")),
        ("unreadable", "acme--news"),
    ]
    assert all("config.json" in one.text for one in found.findings[2:])


def test_an_alias_for_no_model_is_refused_and_one_for_no_name_is_listed(tmp_path: Path) -> None:
    model(tmp_path / "base", 1)
    with pytest.raises(DataError, match="'q=zzz': 'zzz' is not here"):
        import_families([tmp_path], aliases={"q": "zzz"})
    found = import_families([tmp_path], aliases={"q": "base"})
    assert listed(found) == [("unused alias", "q")]


def test_equal_models_are_listed_once_each(tmp_path: Path) -> None:
    for name in "abcd":
        model(tmp_path / name, 1, **({"base_model": "c"} if name == "d" else {}))
    found = import_families([tmp_path])
    assert listed(found) == [("same weights", "b"), ("same weights", "c")]
    first = import_families([tmp_path / "c"])
    (tmp_path / "d/README.md").unlink()
    found = import_families([tmp_path], known=first.graph)
    assert listed(found) == [("same weights", "a"), ("same weights", "b"), ("same weights", "d")]
    assert {"'c'" in one.text for one in found.findings} == {True}


def test_a_version_of_the_graph_has_the_name_that_its_id_was_made_of(tmp_path: Path) -> None:
    model(tmp_path / "acme/base", 1)
    first = import_families([tmp_path])
    (tmp_path / "acme/base").rename(tmp_path.parent / "aside")
    model(tmp_path / "acme/news", 2, base_model="acme/base")
    second = import_families([tmp_path], known=first.graph)
    assert parents(second) == {"acme--news": "acme--base"}
    assert second.findings == ()
    model(tmp_path / "acme/base", 3)  # another version of that name
    third = import_families([tmp_path], known=first.graph)
    (further,) = {one.id for one in third.graph.models()} - {"acme--base", "acme--news"}
    assert parents(third) == {"acme--news": further}
    (tmp_path / "acme/base/model.safetensors").unlink()
    (tmp_path / "acme/base").rmdir()
    model(tmp_path / "acme/chat", 4, base_model="acme/base")
    fourth = import_families([tmp_path / "acme/chat"], known=third.graph)
    assert listed(fourth) == [("ambiguous parent", "chat")]
