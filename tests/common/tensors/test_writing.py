"""Files that are written and read tensor by tensor: as safetensors itself writes and reads them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.store.objects import Objects
from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.checkpoints import (
    load_checkpoint,
    make_manifest,
    tensor_bytes,
    weights_digest,
)
from disinherit.common.tensors.files import DTYPES, TensorFile
from disinherit.common.tensors.stored import kinds_of, spilled
from disinherit.common.tensors.writing import TensorWriter


def example() -> dict[str, Tensor]:
    some = {str(dtype): torch.arange(6).view(2, 3).to(dtype) for dtype in DTYPES.values()}
    return {**some, "none": torch.empty(0, 3), "scalar": torch.tensor(7.5)}


def equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(
        one.to(torch.complex128), other.to(torch.complex128)
    )


def test_a_file_has_the_bytes_order_and_manifest_of_safetensors(tmp_path: Path) -> None:
    state, path = example(), tmp_path / "x.safetensors"
    with TensorWriter(tmp_path, kinds_of(state), make_manifest(state)) as writer:
        for name in writer.names:
            writer.write(name, state[name])
        writer.move_to(path)
    again = load_checkpoint(path, weights_digest(state))
    assert all(equal(again[name], value) for name, value in state.items())
    other = tmp_path / "y.safetensors"
    other.write_bytes(tensor_bytes(state))
    with TensorFile(path) as ours, TensorFile(other) as theirs:
        assert list(ours.names) == list(theirs.names)
        assert ours.manifest == make_manifest(state)
        assert all(equal(ours.read(name), theirs.read(name)) for name in theirs.names)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_what_is_written_anew_counts_and_is_read_again(tmp_path: Path) -> None:
    state = {"a": torch.zeros(2), "b": torch.ones(3)}
    with TensorWriter(tmp_path, kinds_of(state)) as writer:
        for name, value in state.items():
            writer.write(name, value)
        stored = writer.opened()
        assert torch.equal(stored["a"], state["a"])
        writer.write("a", state["a"] + 5)
        assert torch.equal(writer.opened()["a"], state["a"] + 5)
        assert writer.digest == weights_digest({**state, "a": state["a"] + 5})
        writer.move_to(tmp_path / "x")
    assert load_checkpoint(tmp_path / "x", writer.digest).keys() == state.keys()


def test_another_dtype_or_shape_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with TensorWriter(tmp_path, kinds_of({"a": torch.zeros(2)})) as writer:
        for odd in (torch.zeros(3), torch.zeros(2).double()):
            with pytest.raises(CheckpointError, match=r"Expected 'a' as torch.float32 of shape"):
                writer.write("a", odd)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="complex128"):
        TensorWriter(tmp_path, kinds_of({"a": torch.zeros(2).to(torch.complex128)}))


def test_an_opening_removes_unfinished_files_but_those_at_work(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    (tmp_path / ".disinherit-0.tmp").touch()
    with objects.stage(kinds_of({"a": torch.zeros(2)})) as writer:
        writer.write("a", torch.ones(2))
        Objects(tmp_path).keep_only(())
        assert len(list(tmp_path.iterdir())) == 1
        objects.put(writer.digest, writer.opened())
    with objects.open(weights_digest({"a": torch.ones(2)})) as stored:
        assert torch.equal(stored["a"], torch.ones(2))


def test_a_tensor_that_was_damaged_is_found_when_it_is_read(tmp_path: Path) -> None:
    state = {"a": torch.zeros(2), "b": torch.ones(3)}
    objects, digest = Objects(tmp_path), weights_digest(state)
    objects.put(digest, state)
    path = tmp_path / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with objects.open(digest) as stored:
        assert torch.equal(stored["a"], state["a"])
        with pytest.raises(CheckpointError, match="'b'"):
            stored["b"]
    with pytest.raises(CheckpointError):
        objects.get(digest, "weights")


@pytest.mark.parametrize("cut", [0, 4, 30, -3])
def test_what_is_no_safetensors_is_refused_by_its_name(tmp_path: Path, cut: int) -> None:
    data = tensor_bytes({"a": torch.arange(9.0)})
    with (
        pytest.raises(CheckpointError, match="the change of root r"),
        spilled(data[:cut], tmp_path, "the change of root r") as tensors,
    ):
        tensors["a"]
    assert list(tmp_path.iterdir()) == []
