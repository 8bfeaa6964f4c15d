"""Digests of weights without torch: those that the rest of the project makes with it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disinherit.common.errors import DataError
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.families.evidence import Evidence, Kind, Weights
from disinherit.families.weight_files import groups, weights_of
from disinherit.families.weights import NO_WEIGHTS, files_weights, tensors_weights

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
)


def test_digest_and_architecture_are_those_of_the_loaded_tensors(tmp_path: Path) -> None:
    state = {
        f"a.{place}": torch.arange(6).reshape(2, 3).to(dtype) for place, dtype in enumerate(DTYPES)
    }
    state |= {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4), "ä\n": torch.ones(1)}
    save_file(state, tmp_path / "model.safetensors")
    expected = Weights(weights_digest(state), architecture_fingerprint(state))
    assert tensors_weights([tmp_path / "model.safetensors"]) == expected
    names = sorted(state)
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: state[name] for name in chosen}, tmp_path / f"{part}.safetensors")
    shards = [tmp_path / "1.safetensors", tmp_path / "0.safetensors"]
    assert tensors_weights(shards) == expected


def header(content: object, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2**62),
        struct.pack("<Q", 2**24 + 1) + b" " * (2**24 + 1),
        header([]),
        header({"a": 1}),
        header({"a": ONE}),
        header({"a": ONE}, b"1234567"),
        header({"a": ONE, "b": ONE}, b"1234"),
        header({"a": ONE | {"data_offsets": [4, 8]}}, b"12345678"),
        header({"a": ONE | {"dtype": "F31"}}, b"1234"),
        header({"a": ONE | {"shape": [-1, -1]}}, b"1234"),
        header({"a": ONE | {"shape": [1.0]}}, b"1234"),
        header({"a": ONE | {"shape": [2**63, 2**63] * 100}}, b"1234"),
        header({"a": ONE | {"shape": [1] * 1_000_000}}, b"1234"),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 12) + b'{"a": "\xff\xff"}',
    ],
)
def test_malformed_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"Expected a safetensors file, but got .* model\.safe"
    ) as e:
        tensors_weights([path])
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 400


def test_pickles_are_never_opened_and_pinned_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    first = files_weights([path])
    assert first.architecture == ""
    path.write_bytes(b"cos\nsystem\n(S'touch gone'\ntR.")
    assert files_weights([path]).digest not in (first.digest, "")


def one(folder: Path, *names: str, adapter: bool = False) -> tuple[list[str], list[Kind]]:
    """The files that are taken as the model in a folder with some files, and findings."""
    for name in names:
        if name in INDEXES:
            (folder / name).write_text(json.dumps({"weight_map": INDEXES[name]}))
        else:
            save_file({name: torch.ones(1)}, folder / name)
    evidence = Evidence()
    found, _ = groups({name: folder / name for name in names}, adapter, "m", evidence)
    if found is not None:
        weights_of(found, "m", evidence)
    taken = [] if found is None else [path.name for path in found.paths]
    return taken, [finding.kind for finding in evidence.findings]


INDEXES = {
    "model.safetensors.index.json": {"w": "a.safetensors", "v": "b.safetensors"},
    "pytorch_model.bin.index.json": {"w": 7},
}
"""Name of an index -> what it says."""

INDEX, NO_INDEX = INDEXES
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("names", "taken", "kinds"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"], []),
        (["pytorch_model.bin"], ["pytorch_model.bin"], []),
        (SHARDS, list(SHARDS), []),
        (SHARDS[:1], list(SHARDS[:1]), [Kind.WEIGHTS]),
        (["model.safetensors", *SHARDS], ["model.safetensors"], []),
        (["odd.safetensors"], ["odd.safetensors"], []),
        (["odd.safetensors", "other.safetensors"], [], [Kind.WEIGHTS]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"], []),
        (["a.safetensors", "b.safetensors", INDEX], ["a.safetensors", "b.safetensors"], []),
        (["a.safetensors", INDEX], ["a.safetensors"], [Kind.WEIGHTS]),
        ([INDEX], [], [Kind.WEIGHTS]),
        (
            [INDEX, *SHARDS, "a.safetensors", "b.safetensors"],
            ["a.safetensors", "b.safetensors"],
            [],
        ),
        (["model.safetensors", "a.safetensors", INDEX], ["model.safetensors"], []),
        ([NO_INDEX, "pytorch_model.bin"], ["pytorch_model.bin"], []),
        ([], [], []),
    ],
)
def test_what_loading_would_take_is_taken(
    names: list[str], taken: list[str], kinds: list[Kind], tmp_path: Path
) -> None:
    assert one(tmp_path, *names) == (taken, kinds)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "m.gguf"])
def test_a_pointer_of_git_lfs_is_no_weights(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (tmp_path / name).write_text(pointer)
    evidence = Evidence()
    found, ggufs = groups({name: tmp_path / name}, False, "m", evidence)
    (group,) = [*ggufs, *([] if found is None else [found])]
    assert weights_of(group, "m", evidence) == NO_WEIGHTS
    (one,) = evidence.findings
    assert one.kind is Kind.WEIGHTS
    assert f"Expected weights in {name}, but got a pointer of Git LFS" in one.text


def test_adapter_beside_whole_weights_is_taken_and_listed(tmp_path: Path) -> None:
    names = ("adapter_model.safetensors", "model.safetensors")
    assert one(tmp_path, *names, adapter=True) == ([names[0]], [Kind.CONFLICT])


Reader = Callable[[list[Path]], Weights]


@pytest.mark.parametrize("read", [tensors_weights, files_weights])
def test_file_that_is_gone_is_one_line(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read([tmp_path / "model.safetensors"])
