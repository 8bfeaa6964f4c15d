"""Folders of models in the cache of the hub, at revisions, and without the network."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, InputError
from tests.support.huggingface import bert, library, llama, lora, require, sequences, texts

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.hub_folders import find_folder, hub_name  # noqa: E402
from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from tests.support import zoo  # noqa: E402

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is looked up in the network; all of it fails."""
    found: list[Any] = []

    def none(host: Any, *_: Any, **__: Any) -> Any:
        found.append(host)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two revisions of a model, the newer of which is the main branch."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for seed, commit in enumerate((OLD, NEW)):
        bert(seed).save_pretrained(tmp_path / commit)
        zoo.cached(tmp_path / "hub", "acme/base", commit, tmp_path / commit)
    (tmp_path / "hub/models--acme--base/refs/v1.0").write_text(OLD)
    return tmp_path / "hub"


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[HuggingFaceOwner]:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "anna")) as opened:
        yield opened


def adapter(folder: Path, base: str, revision: str | None) -> None:
    """An adapter on the classifier, whose configuration names its base."""
    lora(bert(), ["query"], task_type="SEQ_CLS").save_pretrained(folder)
    zoo.rewrite(folder / "adapter_config.json", base_model_name_or_path=base, revision=revision)


@pytest.mark.parametrize(
    ("revision", "seed"), [(OLD, 0), ("v1.0", 0), ("a" * 8, 0), (NEW, 1), ("main", 1), (None, 1)]
)
def test_the_base_of_an_adapter_is_that_of_its_revision_and_nothing_is_looked_up(
    owner: HuggingFaceOwner,
    hub: Path,
    tmp_path: Path,
    asked: list[Any],
    revision: str | None,
    seed: int,
) -> None:
    adapter(tmp_path / "lora", "acme/base", revision)
    owner.add("lora", tmp_path / "lora", texts(6, 1))
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(owner.store.weights("lora")[name], bert(seed).state_dict()[name])
    owner.save("lora", tmp_path / "new")
    written = zoo.peft.PeftConfig.from_pretrained(str(tmp_path / "new"))
    assert (written.base_model_name_or_path, written.revision) == ("acme/base", revision)
    assert not asked


@pytest.mark.parametrize("revision", ["c" * 40, "v2", "ccccccc", "../main"])
def test_a_base_that_is_not_here_at_its_revision_is_refused(
    owner: HuggingFaceOwner, hub: Path, tmp_path: Path, asked: list[Any], revision: str
) -> None:
    adapter(tmp_path / "lora", "acme/base", revision)
    bert(1).save_pretrained(tmp_path / "lora/base")  # nobody says that this is it
    with pytest.raises(InputError, match=f"got 'acme/base' at revision '{revision}'. Download"):
        owner.add("lora", tmp_path / "lora", texts(6, 1))
    assert not asked


def test_a_folder_of_the_cache_must_be_of_the_revision(hub: Path, tmp_path: Path) -> None:
    old, new = (hub / "models--acme--base/snapshots" / commit for commit in (OLD, NEW))
    assert find_folder(old, "v1.0") == old
    assert find_folder(tmp_path / OLD, "v9") == tmp_path / OLD, "plain folders have no revisions"
    with pytest.raises(InputError, match="'acme/base' at revision 'v1.0', but .*bbb is another"):
        find_folder(new, "v1.0")
    shutil.copytree(hub, tmp_path / "elsewhere", symlinks=True)
    elsewhere = tmp_path / "elsewhere/models--acme--base/snapshots" / OLD
    assert find_folder(elsewhere, "v1.0") == elsewhere, "of the cache that it is in"
    assert hub_name(old) == hub_name("acme/base") == "acme/base"
    assert hub_name(tmp_path / OLD) == hub_name("../base") == ""


def test_a_relative_folder_is_no_id(
    owner: HuggingFaceOwner, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lacks files would be looked up in the network, as it looks like an id."""
    llama().save_pretrained(tmp_path / "acme/base")
    loaded = library().AutoModelForCausalLM.from_pretrained(tmp_path / "acme/base")
    lora(loaded, task_type="CAUSAL_LM").save_pretrained(tmp_path / "acme/lora")
    monkeypatch.chdir(tmp_path)
    owner.add("lora", "acme/lora", sequences(3, 1))
    Path("acme/lora/adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="acme/lora, but it cannot be loaded"):
        owner.add("other", "acme/lora", sequences(3, 1))
    assert not asked
