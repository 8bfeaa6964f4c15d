"""Storage of cases: weights before and after the exact retraining.

Samples are not stored: they follow from the declaration, and a digest says whether they still do.

::

    weights.safetensors   original/MODEL/PARAMETER, retrained/MODEL/PARAMETER
    case.json             everything else; written last: marks the case as complete
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.files import write_atomic
from disinherit.common.tensors.checkpoints import load_checkpoint, save_checkpoint
from disinherit.common.text import load_json
from disinherit.simulations.scenario.forgetting import SampleRequest
from disinherit.simulations.scenario.inheriting import Weights

SCHEMA_VERSION = 2
_STAYING_ONLY = 2
"""From this version on a client that has left has no share in the retrained averages."""

_CASE = "case.json"
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What training a case gave.

    Attributes:
        original: weights of all models, by id.
        retrained: weights of the affected models after the exact retraining.
        request: the samples to forget, if it is samples.
        data: digest of the data that all this was made with.
        train_seconds: what training all models took.
        retrain_seconds: what the exact retraining took.
    """

    original: dict[str, Weights]
    retrained: dict[str, Weights]
    request: SampleRequest | None
    data: str
    train_seconds: float
    retrain_seconds: float


def is_stored(folder: Path) -> bool:
    """Whether a folder holds a complete case."""
    return (folder / _CASE).is_file()


def save_trained(folder: Path, declaration: Mapping[str, Any], trained: Trained) -> None:
    """Store a case; until all of it is there, the folder holds none.

    Args:
        folder: the case's own; created if it does not exist.
        declaration: what the case is, as JSON values.
        trained: what training gave.

    Raises:
        CheckpointError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"Expected to be able to make the folder {str(folder)!r} for a case, but: {error}."
        ) from error
    tensors = {
        f"{part}/{model}/{name}": value
        for part, models in (("original", trained.original), ("retrained", trained.retrained))
        for model, weights in models.items()
        for name, value in weights.items()
    }
    digest = save_checkpoint(folder / _WEIGHTS, tensors)
    content = {
        "schema_version": SCHEMA_VERSION,
        "declaration": declaration,
        "request": None if trained.request is None else asdict(trained.request),
        "data": trained.data,
        "weights": digest,
        "train_seconds": trained.train_seconds,
        "retrain_seconds": trained.retrain_seconds,
    }
    write_atomic(folder / _CASE, json.dumps(content, indent=1).encode())


def load_trained(folder: Path, declaration: Mapping[str, Any], data: str) -> Trained:
    """Read a case that `save_trained` stored.

    Args:
        folder: the case's own.
        declaration: what the case is.
        data: digest of the data as it is now.

    Raises:
        CheckpointError: if it is missing, damaged, another case, or of other data.
    """
    path = folder / _CASE
    try:
        content = load_json(path.read_bytes())
        request, digest = content["request"], content["weights"]
        seconds = float(content["train_seconds"]), float(content["retrain_seconds"])
        if request is not None:
            request = SampleRequest(**{**request, "indices": tuple(request["indices"])})
        declared, made_of = content["declaration"], content["data"]
        version = int(content["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Expected a case in {path}, but it is missing or damaged: {error}. Remove its folder "
            "to have it trained again."
        ) from error
    if declared != json.loads(json.dumps(declaration)):
        raise CheckpointError(
            f"Expected the case that was asked for in {path}, but it is another one. Remove its "
            "folder to have it trained again."
        )
    if declared.get("granularity") == "client" and version < _STAYING_ONLY:
        raise CheckpointError(
            f"Expected in {path} a retraining without the client's share in averages, but an older "
            "Disinherit made it, with that share. Remove its folder to have it trained again."
        )
    if made_of != data:
        raise CheckpointError(
            f"Expected the data that the case in {path} was trained on, but the data set has "
            "changed since. Remove its folder to have it trained again."
        )
    parts: dict[str, dict[str, dict[str, Tensor]]] = {"original": {}, "retrained": {}}
    for key, value in load_checkpoint(folder / _WEIGHTS, digest).items():
        part, model, name = key.split("/", 2)
        parts[part].setdefault(model, {})[name] = value
    return Trained(parts["original"], parts["retrained"], request, data, *seconds)
