"""Weights of versions that were made again for a request, kept until the request is applied.

Beside the store of the owner's models, and like it for the owner's eyes only::

    repeated/<request>/<version>.safetensors
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import StoreError
from disinherit.common.graph.identifiers import check_id
from disinherit.common.tensors.checkpoints import load_checkpoint, save_checkpoint


class RepeatedWeights:
    """The repeated weights of one owner.

    Args:
        folder: of its models.
        store: its models.
    """

    def __init__(self, folder: Path, store: ModelStore) -> None:
        self._folder = folder / "repeated"
        self._store = store

    def keep(self, request_id: str, version: str, weights: Mapping[str, Tensor]) -> str:
        """Keep the new weights of a version, and return their digest.

        Raises:
            CheckpointError: if they cannot be written.
            OSError: if the folder cannot be written to.
        """
        path = self._path(request_id, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_checkpoint(path, weights)

    def find(self, request_id: str, version: str) -> dict[str, Tensor] | None:
        """Return the new weights of a version; `None` if there are none for the request.

        Raises:
            CheckpointError: if they are damaged.
        """
        path = self._path(request_id, version)
        return load_checkpoint(path) if path.exists() else None

    def sweep(self) -> None:
        """Remove what is no longer needed, since its request was applied to the version."""
        for path in self._folder.glob("*/*.safetensors"):
            try:
                record = self._store.record(path.stem)
            except StoreError:  # it is no model any more
                path.unlink()
                continue
            if self._store.applied(path.parent.name, record.digest, record.id) is not None:
                path.unlink()
        for folder in self._folder.glob("*"):
            if not any(folder.iterdir()):
                shutil.rmtree(folder)

    def _path(self, request_id: str, version: str) -> Path:
        return self._folder / check_id(request_id, "request id") / f"{version}.safetensors"
