"""Identity of weights: the lines and digests that name tensors, without the tensors. No torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

Manifest = Mapping[str, str]
"""Name -> one line with dtype, shape and digest of the tensor (`manifest_line`)."""


def manifest_line(name: str, dtype: str, shape: Sequence[int], digest: str) -> str:
    """Return the line of a tensor: JSON `[name, dtype, shape, digest]`.

    Args:
        name: name of the tensor.
        dtype: its dtype as PyTorch names it, such as `float32`.
        shape: its shape.
        digest: SHA-256 of its little-endian bytes in row-major order.
    """
    return json.dumps([name, dtype, list(shape), digest])


def manifest_digest(manifest: Manifest) -> str:
    """Return the digest of the tensors with this manifest: SHA-256 of its lines, sorted by name."""
    text = "".join(f"{manifest[name]}\n" for name in sorted(manifest))
    return hashlib.sha256(text.encode()).hexdigest()


def structure_digest(entries: Iterable[tuple[str, Sequence[int], str]]) -> str:
    """Return the SHA-256 of names, shapes and dtypes of tensors, in any order.

    Args:
        entries: name, shape and dtype as PyTorch names it, of each tensor.
    """
    listed = [[name, list(shape), dtype] for name, shape, dtype in sorted(entries)]
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()
