"""Checkpoints: the digest against an independent one, round trips, damage."""

import hashlib
import pickle
import struct
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.checkpoints import (
    load_checkpoint,
    save_checkpoint,
    tensor_bytes,
    tensors_from_bytes,
    weights_digest,
)

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def example_state() -> dict[str, Tensor]:
    return {
        "head.weight": torch.arange(6.0).reshape(2, 3),
        "head.bias": torch.tensor([0.5, -0.0]),
        "steps": torch.tensor(7),
        "none": torch.empty(0, 3),
    }


def naive_digest(
    state: dict[str, np.ndarray], dtypes: dict[str, str], order: Literal["<", ">"]
) -> str:
    """The documented format again, by numpy: a JSON line with a digest, per sorted name."""
    content = ""
    for name in sorted(state):
        array = state[name]
        shape = ", ".join(str(size) for size in array.shape)
        data = array.astype(array.dtype.newbyteorder(order)).tobytes()
        digest = hashlib.sha256(data).hexdigest()
        content += f'["{name}", "{dtypes[name]}", [{shape}], "{digest}"]\n'
    return hashlib.sha256(content.encode()).hexdigest()


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert tensor.shape == right[name].shape
        assert tensor.contiguous().view(-1).tolist() == right[name].contiguous().view(-1).tolist()


def test_digest_is_the_documented_one() -> None:
    state = example_state()
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    dtypes = dict.fromkeys(state, "float32") | {"steps": "int64"}
    assert weights_digest(state) == naive_digest(arrays, dtypes, "<")


def test_digest_never_changes() -> None:
    # A constant: stores and certificates outlive a release.
    expected = "4d1f2eaddabf5bd072fc665bcd004f58ae8501854c3256370ba892fec2f3e9e7"
    assert weights_digest({"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3)}) == expected


def test_digest_swaps_the_bytes_of_a_big_endian_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    state = example_state()
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    dtypes = dict.fromkeys(state, "float32") | {"steps": "int64"}
    complex_state = {"z": torch.tensor([1 + 2j])}
    monkeypatch.setattr(sys, "byteorder", "big")
    # The memory here is little-endian, so swapping makes it big-endian.
    assert weights_digest(state) == naive_digest(arrays, dtypes, ">")
    expected = naive_digest({"z": complex_state["z"].numpy()}, {"z": "complex64"}, ">")
    assert weights_digest(complex_state) == expected


def test_digest_ignores_order_layout_and_gradient() -> None:
    state = example_state()
    other = dict(reversed(state.items()))
    other["head.weight"] = other["head.weight"].T.contiguous().T.requires_grad_()
    assert not other["head.weight"].is_contiguous()
    assert weights_digest(other) == weights_digest(state)


@pytest.mark.parametrize(
    "change",
    [
        {"head.bias": torch.tensor([0.5, 0.0])},  # the sign of a zero is a bit too
        {"head.bias": torch.tensor([-0.0, 0.5])},
        {"head.bias": torch.tensor([0.5, -0.0], dtype=torch.float64)},
        {"head.weight": torch.arange(6.0).reshape(3, 2)},
        {"none": torch.empty(3, 0)},
        {"more": torch.empty(0)},
    ],
)
def test_every_change_changes_the_digest(change: dict[str, Tensor]) -> None:
    state = example_state()
    assert weights_digest(state | change) != weights_digest(state)


def test_digest_does_not_run_names_and_values_together() -> None:
    one = {"a": torch.tensor([1, 2], dtype=torch.uint8)}
    header = b'["b", "uint8", [1]]\n'
    joined = {"a": torch.tensor([9, *header, 5], dtype=torch.uint8)}
    split = {"a": torch.tensor([9], dtype=torch.uint8), "b": torch.tensor([5], dtype=torch.uint8)}
    assert len({weights_digest(state) for state in (one, joined, split)}) == 3
    assert weights_digest({"a\n": one["a"]}) != weights_digest({"a": one["a"]})


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_round_trip_keeps_every_dtype(dtype: torch.dtype) -> None:
    state = {
        "matrix": torch.tensor([[0, 1], [1, 3]]).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "nothing": torch.empty(0, 2, dtype=dtype),
    }
    loaded = tensors_from_bytes(tensor_bytes(state), "the test")
    assert_same(loaded, state)
    assert weights_digest(loaded) == weights_digest(state)


def test_views_and_shared_storage_are_stored_in_full() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"base": base, "same": base, "row": base[1], "transposed": base.T, "part": base[:, 1:3]}
    loaded = tensors_from_bytes(tensor_bytes(state), "the test")
    assert_same(loaded, state)
    loaded["row"].zero_()
    assert loaded["base"].tolist() == base.tolist()


def test_lazy_conjugation_and_sign_are_resolved() -> None:
    value = torch.tensor([1 + 2j])
    state = {"conjugated": value.conj(), "negated": value.conj().imag}
    assert state["negated"].is_neg()
    loaded = tensors_from_bytes(tensor_bytes(state), "the test")
    assert loaded["conjugated"].tolist() == [1 - 2j]
    assert loaded["negated"].tolist() == [-2.0]
    assert weights_digest(loaded) == weights_digest(state)


def test_metadata_is_in_the_header_and_not_in_the_digest() -> None:
    state = example_state()
    data = tensor_bytes(state, {"scope": "head"})
    assert b'"scope":"head"' in data
    assert weights_digest(tensors_from_bytes(data, "the test")) == weights_digest(state)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"x": torch.eye(2).to_sparse()}, "dense tensor with data for 'x'"),
        ({"x": torch.empty(2, device="meta")}, "device meta"),
        ({"__metadata__": torch.ones(1)}, "keeps for itself"),
        ({"x": 3.0}, "tensor for 'x', but got float"),
        ({"x": torch.ones(2, dtype=torch.complex128)}, "complex128"),
        ({"\ud800": torch.ones(1)}, "surrogates"),
    ],
)
def test_tensors_that_cannot_be_stored_are_refused(state: dict[str, Tensor], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        tensor_bytes(state)


def test_damaged_bytes_are_refused_by_name() -> None:
    data = tensor_bytes(example_state())
    for damaged in (b"", b"text", data[:-1], data + b"x", data.replace(b"F32", b"X32", 1)):
        with pytest.raises(CheckpointError, match="Expected packet 7 to be in the safetensors"):
            tensors_from_bytes(damaged, "packet 7")


@pytest.mark.parametrize("shape", ["[0,18446744073709551615]", "[-1]", "[0,99999999999999999]"])
def test_absurd_shapes_raise_only_checkpoint_errors(shape: str) -> None:
    header = f'{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'.encode()
    data = struct.pack("<Q", len(header)) + header
    try:
        loaded = tensors_from_bytes(data, "the test")
    except CheckpointError:
        return
    assert loaded["x"].numel() == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_changes_the_digest(data: st.DataObject) -> None:
    state = {"a": torch.arange(4, dtype=torch.int32), "b": torch.ones(2, 2)}
    content = bytearray(tensor_bytes(state))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    try:
        loaded = tensors_from_bytes(bytes(content), "the test")
    except CheckpointError:
        return
    # A blank at the end of the header may change, which changes no tensor.
    if weights_digest(loaded) == weights_digest(state):
        assert_same(loaded, state)


def test_a_sound_file_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    # The length of the header comes first: 0x0280 looks like the start of a pickle.
    state = {"x": torch.ones(1)}
    bare = len(tensor_bytes(state, {"pad": ""}))
    header = struct.unpack("<Q", tensor_bytes(state, {"pad": ""})[:8])[0]
    data = tensor_bytes(state, {"pad": "p" * (0x0280 - header)})
    assert len(data) > bare
    assert data[:2] == b"\x80\x02"
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert_same(load_checkpoint(path), state)


class Bomb:
    """Touches a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch_legacy"])
def test_a_pickle_is_named_and_never_opened(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save(Bomb(trace), path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(CheckpointError, match=r"model\.pt .*looks like a pickle; never opened"):
        load_checkpoint(path)
    assert not trace.exists()


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    digest = save_checkpoint(path, example_state())
    assert digest == weights_digest(example_state())
    assert_same(load_checkpoint(path, digest), example_state())
    assert_same(load_checkpoint(path), example_state())
    assert list(tmp_path.iterdir()) == [path]


def test_load_names_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    digest = save_checkpoint(path, {"x": torch.ones(2)})
    other = weights_digest({"x": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=f"digest {other} in .*, but got {digest}"):
        load_checkpoint(path, other)


def test_load_refuses_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="readable file"):
        load_checkpoint(tmp_path)
