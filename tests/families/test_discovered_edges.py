"""What was discovered, imported as an edge list: edges are between the versions of the import."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.families.discovered_edges import edge_list
from disinherit.families.discovering import discover
from disinherit.families.importing import Imported, import_families

Weights = Mapping[str, Tensor]


def family() -> dict[str, Weights]:
    """A base, two fine-tunes, their average and a copy of one in bfloat16."""
    torch.manual_seed(0)
    base = torch.randn(64, 64)
    one, other = (base + 0.05 * torch.randn(64, 64) for _ in range(2))
    models = {"base": base, "news": one, "chat": other, "merge": 0.5 * one + 0.5 * other}
    models["half"] = one.bfloat16()
    return {name: {"w": value} for name, value in models.items()}


EDGES = {
    ("base", "news"),
    ("base", "chat"),
    ("news", "merge"),
    ("chat", "merge"),
    ("news", "half"),
}


def put(folder: Path, weights: Weights, file: str = "model.safetensors") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / file)


def put_cached(hub: Path, name: str, commit: str, weights: Weights, main: bool = True) -> None:
    """A model in the hub's cache, whose files are links to blobs."""
    repository = hub / f"models--{name.replace('/', '--')}"
    put(repository / "blobs", weights, commit)
    place = repository / "snapshots" / commit
    place.mkdir(parents=True)
    (place / "model.safetensors").symlink_to(os.path.relpath(repository / "blobs" / commit, place))
    if main:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)


def imported(folder: Path, *bases: str) -> tuple[Imported, Mapping[str, str]]:
    """What the two documented commands make of a folder, and what the list leaves out."""
    text, left = edge_list(discover(folder, bases))
    edges = folder.parent / f"{folder.name}.csv"
    edges.write_text(text)
    return import_families([folder, edges]), left


def edges_of(result: Imported) -> set[tuple[str, str]]:
    return {(edge.parent, edge.child) for edge in result.graph.edges()}


def check_weights(result: Imported) -> None:
    """Every version that an edge joins has weights: it is a model in the folder."""
    joined = {id for edge in edges_of(result) for id in edge}
    assert all(result.graph.model(id).digest for id in joined)


def test_models_in_the_hubs_cache_have_the_names_of_their_repositories(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for at, (name, weights) in enumerate(family().items()):
        put_cached(hub, f"acme/{name}", str(at) * 40, weights)
    result, left = imported(hub, "acme/base")
    assert not left
    assert edges_of(result) == {(f"acme--{p}", f"acme--{c}") for p, c in EDGES}
    check_weights(result)
    assert len(result.graph.models()) == 5


def test_revisions_in_the_hubs_cache_are_versions(tmp_path: Path) -> None:
    hub, models = tmp_path / "hub", family()
    old, new = "0" * 40, "f" * 40
    put_cached(hub, "acme/base", old, models["base"], main=False)
    put_cached(hub, "acme/base", new, models["chat"])
    put_cached(hub, "acme/news", "1" * 40, models["news"], main=False)
    put_cached(hub, "acme/news", "2" * 40, models["half"])
    result, left = imported(hub, f"acme/base@{old}")
    ids = [one.id for one in result.graph.models()]
    (base,) = (id for id in ids if id.startswith("acme--base."))
    (news,) = (id for id in ids if id.startswith("acme--news."))
    assert edges_of(result) == {(base, "acme--base"), (news, "acme--news")}
    assert list(left) == [f"acme/news@{'1' * 40}"]
    check_weights(result)


def test_a_model_at_the_top_has_the_name_of_the_folder(tmp_path: Path) -> None:
    models, top = family(), tmp_path / "top"
    put(top, models["base"])
    put(top / "a" / "news", models["news"])
    result, left = imported(top, "top")
    assert not left
    assert edges_of(result) == {("top", "a--news")}
    check_weights(result)


def test_of_several_files_in_a_folder_the_list_names_the_one_that_is_imported(
    tmp_path: Path,
) -> None:
    models, top = family(), tmp_path / "top"
    put(top / "base", models["base"])
    put(top / "news", models["news"])
    put(top / "news", models["half"], "model.bf16.safetensors")
    put(top / "loose", models["chat"], "one.safetensors")
    put(top / "loose", models["merge"], "two.safetensors")
    result, left = imported(top, "base")
    assert set(left) == {"news/model.bf16", "loose/one", "loose/two"}
    assert all("a folder of its own" in reason for reason in left.values())
    assert edges_of(result) == {("base", "news")}
    check_weights(result)


@pytest.mark.parametrize(
    "odd", ["a,b", '"q"', "=1+2", "x y", "\N{GREEK SMALL LETTER ALPHA}", "a;b", "'"]
)
def test_odd_names_are_imported(odd: str, tmp_path: Path) -> None:
    models, top = family(), tmp_path / "top"
    put(top / "base", models["base"])
    put(top / odd, models["news"])
    result, left = imported(top, "base")
    assert not left
    (edge,) = result.graph.edges()
    assert edge.parent == "base"
    check_weights(result)


@pytest.mark.parametrize("odd", ["new\nline", "tab\t", " blank", "end ", "\x1b[2J", "\udcff"])
def test_names_that_no_list_holds_are_left_out_of_it_and_the_rest_is_imported(
    odd: str, tmp_path: Path
) -> None:
    models, top = family(), tmp_path / "top"
    put(top / "base", models["base"])
    put(top / "chat", models["chat"])
    (top / "odd").mkdir()
    put(top / "odd", models["news"])
    (top / "odd").rename(top / odd)
    result, left = imported(top, "base")
    assert set(left) == {odd}
    assert "name its folder otherwise" in left[odd]
    assert edges_of(result) == {("base", "chat")}


def test_models_of_one_name_are_left_out_of_the_list(tmp_path: Path) -> None:
    models, top = family(), tmp_path / "same"
    put(top, models["base"])
    put(top / "same", models["news"])
    put(top / "chat", models["chat"])
    result, left = imported(top, "chat")
    assert len(left) == 2
    assert all("several models" in reason for reason in left.values())
    assert not edges_of(result)


@pytest.mark.parametrize("file", ["", "model.gguf", "pytorch_model.bin", "notes.txt"])
def test_a_folder_without_safetensors_is_refused(file: str, tmp_path: Path) -> None:
    if file:
        (tmp_path / file).write_bytes(b"text")
    with pytest.raises(DataError, match="Expected weights in safetensors"):
        discover(tmp_path)


def test_links_that_lead_out_are_listed(tmp_path: Path) -> None:
    top, weights = tmp_path / "top", family()["base"]
    put(tmp_path / "elsewhere", weights)
    put(top / "base", weights)
    (top / "linked").mkdir()
    (top / "linked" / "model.safetensors").symlink_to(tmp_path / "elsewhere" / "model.safetensors")
    assert list(discover(top).unread) == ["linked/model.safetensors"]
