"""Weights and Fisher summaries as safetensors: digest, bytes and files.

Nothing here unpickles.  A file is read into memory and not mapped: content that was checked against
a digest cannot change afterwards.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.files import write_atomic
from disinherit.common.tensors.identity import Manifest, manifest_digest, manifest_line

_PICKLE_STARTS = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))


def weights_digest(state: Mapping[str, Tensor]) -> str:
    r"""SHA-256 of the tensors' *content*, independent of how they are stored.

    The digest covers the lines of their manifest, sorted by name.  Device, memory layout, order of
    names and file layout do not affect it; a single bit of a value, a dtype or a shape does.

    Args:
        state: tensors by name, of any shape and dtype.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> a, b = torch.zeros(2, 3), torch.ones(3, 2)
        >>> weights_digest({"a": a, "b": b}) == weights_digest({"b": b.T.contiguous().T, "a": a})
        True
        >>> weights_digest({"a": a}) == weights_digest({"a": a.T})
        False
    """
    return manifest_digest(make_manifest(state))


def make_manifest(state: Mapping[str, Tensor]) -> Manifest:
    """Return a line for each tensor: JSON `[name, dtype, shape, digest]`.

    The digest is the SHA-256 of the little-endian bytes in row-major order.  If some tensors
    change, only their lines do, so the new total digest needs no other tensor.
    """
    return {
        name: tensor_line(
            name, value.dtype, value.shape, hashlib.sha256(content_of(name, value)).hexdigest()
        )
        for name, value in state.items()
    }


def tensor_line(name: str, dtype: torch.dtype, shape: Sequence[int], digest: str) -> str:
    """Return the line of one tensor, by the SHA-256 of its content."""
    return manifest_line(name, str(dtype).removeprefix("torch."), shape, digest)


def content_of(name: str, value: object) -> memoryview:
    """Return the little-endian bytes of a tensor in row-major order, without a copy if it has them.

    Args:
        name: its name, for the message.
        value: the tensor, on any device.

    Raises:
        CheckpointError: if it is no dense tensor with data.
    """
    return _little_endian(_plain(name, value)).numpy().data


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise tensors as safetensors.

    Args:
        tensors: tensors by name; views, and names that share storage, are written out in full.
        metadata: text for the header.  The order of several entries is not fixed, so the bytes of
            two calls may differ; `weights_digest` does not.

    Returns:
        The content of a safetensors file.

    Raises:
        CheckpointError: if a name or value cannot be stored as safetensors.
    """
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        tensor = _plain(name, value)
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    try:
        return safetensors.torch.save(plain, None if metadata is None else dict(metadata))
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected tensors that safetensors can store, but got {error!r} for {sorted(plain)}."
        ) from error


def tensors_from_bytes(data: bytes, what: str) -> dict[str, Tensor]:
    """Read tensors from the content of a safetensors file.

    Args:
        data: the content.
        what: name of the source, for the error message.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: if `data` is damaged or something else.
    """
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        # Checked only now: a sound safetensors file may begin with the same bytes.
        if data.startswith(_PICKLE_STARTS):
            raise CheckpointError(
                f"Expected {what} to be in the safetensors format, but it looks like a pickle; "
                "never opened, because a pickle can run code. Convert it where it comes from."
            ) from None
        raise CheckpointError(
            f"Expected {what} to be in the safetensors format, but got {len(data)} bytes that are "
            f"damaged or something else ({error}). Fetch or write it again."
        ) from error


def save_checkpoint(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write tensors to a safetensors file, atomically and durably.

    Args:
        path: the file, new or to be replaced; its folder exists.
        state: tensors by name.

    Returns:
        `weights_digest(state)`.

    Raises:
        CheckpointError: if the tensors cannot be stored or the file cannot be written.
    """
    write_atomic(path, tensor_bytes(state))
    return weights_digest(state)


def load_checkpoint(path: Path, expected_digest: str | None = None) -> dict[str, Tensor]:
    """Read tensors from a safetensors file.

    Args:
        path: the file.
        expected_digest: `weights_digest` of the tensors it must hold; `None` accepts any.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: if the file is missing, unreadable, damaged, a pickle, or does not match
            `expected_digest`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Expected a readable file {path}, but got: {error}.") from error
    state = tensors_from_bytes(data, str(path))
    if expected_digest is not None and (digest := weights_digest(state)) != expected_digest:
        raise CheckpointError(
            f"Expected tensors with digest {expected_digest} in {path}, but got {digest}. The "
            "file was damaged or replaced; restore it."
        )
    return state


def _plain(name: str, value: object) -> Tensor:
    """Return `value` dense, contiguous, on the CPU and without a pending conjugation or sign."""
    if name == "__metadata__":
        raise CheckpointError(
            "Expected a tensor name other than '__metadata__', which safetensors keeps for itself."
        )
    if not isinstance(value, Tensor):
        raise CheckpointError(f"Expected a tensor for {name!r}, but got {type(value).__name__}.")
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        raise CheckpointError(
            f"Expected a dense tensor with data for {name!r}, but got layout {value.layout}, dtype "
            f"{value.dtype} on device {value.device}."
        )
    # safetensors would write the stored bytes without the lazy conjugation and sign.
    return value.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _little_endian(tensor: Tensor) -> Tensor:
    """Return the bytes `[n]` of a contiguous tensor, least significant byte of a number first."""
    # Not `reshape(-1)`: a single value may have a stride other than 1, which cannot be viewed.
    flat = tensor.as_strided((tensor.numel(),), (1,))
    raw = flat.view(torch.uint8)
    if sys.byteorder == "little":
        return raw
    width = flat.element_size() // (2 if flat.is_complex() else 1)
    return raw.reshape(-1, width).flip(1).reshape(-1)
