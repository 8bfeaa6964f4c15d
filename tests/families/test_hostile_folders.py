"""Folders that are malformed or out to harm: one line each, and all else is read."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disinherit.common.errors import DataError, GraphError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Kind
from disinherit.families.importing import Origin
from tests.support import zoo
from tests.support.zoo import edges, imported, kinds

pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_named_pipes_are_not_waited_for(copy: Path) -> None:
    hub = copy / "models--a--b"
    for folder in (copy / "pipes", hub / "refs", hub / "snapshots/1"):
        folder.mkdir(parents=True)
    names = ("README.md", "config.json", "model.safetensors", "x.gguf", "mergekit_config.yml")
    places = [copy / "pipes" / name for name in names]
    for place in (*places, hub / "refs/main", copy / "dvc.lock"):
        os.mkfifo(place)
    (hub / "snapshots/1/README.md").write_text("text")
    found = imported(copy)
    assert sum(kind is Kind.UNREADABLE for kind, _ in kinds(found)) == len(names) + 1
    assert "a--b" in found.graph
    os.mkfifo(copy / "mlflow.db")
    with pytest.raises(DataError, match="no regular file"):
        imported(copy / "mlflow.db")


def test_odd_names_of_folders_are_safe_ids(tmp_path: Path) -> None:
    for name in ("a b", "a~b", "ä\x1b[2J", "x" * 200, "..a", "a-b"):
        zoo.card(tmp_path / name, library_name="x")
    found = imported(tmp_path)
    assert len(found.graph) == 6
    assert imported(tmp_path, known=found.graph).changed == ()
    for one in found.findings:
        assert one.model.isprintable()
        assert one.text.isprintable()


def test_folders_are_named_as_those_of_a_cache_only_there(tmp_path: Path) -> None:
    hub = tmp_path / "models--acme--base"
    for folder in (tmp_path / "blobs", tmp_path / "acme/refs", hub / "snapshots/1", hub / "blobs"):
        zoo.card(folder, library_name="x")
    assert {record.id for record in imported(tmp_path).graph.models()} == {
        *("blobs", "acme--refs", "acme--base"),
    }


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
