"""Large objects in several files: layout, sharing of what did not change, and damage."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.store.objects import Objects
from disinherit.common.errors import CheckpointError
from disinherit.common.tensors import shards
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.tensors.stored import kinds_of

STATE = {f"w{index}": torch.full((100,), float(index)) for index in range(9)}
DIGEST = weights_digest(STATE)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)  # two tensors


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    objects = Objects(tmp_path)
    objects.put(DIGEST, STATE)
    return objects


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.safetensors")}


def staged(objects: Objects, state: dict[str, Tensor], like: str = DIGEST) -> int:
    with objects.stage(kinds_of(STATE), like) as writer:
        for name in writer.names:
            writer.write(name, state[name])
        written = writer.opened()
        assert all(torch.equal(written[name], value) for name, value in state.items())
        assert writer.digest == weights_digest(state)
        objects.put(writer.digest, written)
        return writer.written


def test_an_object_is_in_files_named_by_their_digests(objects: Objects, tmp_path: Path) -> None:
    listed = json.loads((tmp_path / f"{DIGEST}.shards").read_text())
    assert {f"{digest}.safetensors" for digest in listed} == files(tmp_path).keys()
    assert len(listed) == 5
    assert listed[0] == weights_digest({"w0": STATE["w0"], "w1": STATE["w1"]})
    for found in (objects.get(DIGEST, "it"), objects.scope(DIGEST, list(STATE)).tensors):
        assert found.keys() == STATE.keys()
        assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert objects.any()


def test_only_files_in_which_something_changed_are_written(
    objects: Objects, tmp_path: Path
) -> None:
    before = files(tmp_path)
    new = STATE | {"w4": STATE["w4"] + 1}
    assert staged(objects, new) == 1
    after = files(tmp_path)
    assert before.items() <= after.items(), "not even rewritten"
    assert len(after) == len(before) + 1
    again = STATE | {"w4": STATE["w4"] + 1, "w8": STATE["w8"] - 1}
    assert staged(objects, again, weights_digest(new)) == 1
    objects.keep_only([weights_digest(again)])
    assert len(files(tmp_path)) == 5
    found = objects.get(weights_digest(again), "it")
    assert all(torch.equal(found[name], value) for name, value in again.items())
    with pytest.raises(CheckpointError):
        objects.get(DIGEST, "it")
    assert staged(objects, again, weights_digest(again)) == 0


def test_kept_tensors_are_not_read_where_their_file_is_shared(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unread(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            raise AssertionError(name)

    with objects.stage(kinds_of(STATE), DIGEST) as writer:
        for name in writer.names:
            writer.keep(name, Unread())
        writer.write("w3", STATE["w3"] * 2)
        assert writer.written == 1
        assert writer.digest == weights_digest(STATE | {"w3": STATE["w3"] * 2})
        writer.write("w3", STATE["w3"])  # it may be put back
        objects.put(writer.digest, writer.opened())
    assert objects.get(DIGEST, "it").keys() == STATE.keys()


def test_a_damaged_tensor_is_found_when_its_file_is_written_anew(
    objects: Objects, tmp_path: Path
) -> None:
    name = json.loads((tmp_path / f"{DIGEST}.shards").read_text())[1]
    path = tmp_path / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of w3
    path.write_bytes(data)
    with objects.stage(kinds_of(STATE), DIGEST) as writer:
        writer.keep("w3", {})
        with pytest.raises(CheckpointError, match="'w3'"):
            writer.write("w2", STATE["w2"] + 1)
    with pytest.raises(CheckpointError, match="'w3'"):
        objects.get(DIGEST, "it")


def test_nothing_is_removed_while_a_list_of_files_is_damaged(
    objects: Objects, tmp_path: Path
) -> None:
    (tmp_path / f"{DIGEST}.shards").write_text('["../../etc/passwd"]')
    objects.keep_only([DIGEST])
    assert len(files(tmp_path)) == 5
    with pytest.raises(CheckpointError, match="list of shards"):
        objects.get(DIGEST, "it")


def test_a_file_that_was_removed_meanwhile_is_not_relied_on(
    objects: Objects, tmp_path: Path
) -> None:
    with objects.stage(kinds_of(STATE), DIGEST) as writer:
        for name in writer.names:
            writer.keep(name, {})
        objects.keep_only([])
        with pytest.raises(CheckpointError, match="removed meanwhile"):
            objects.put(DIGEST, writer.opened())
