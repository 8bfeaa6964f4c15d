"""Models of transformers and PEFT from folders, and their architecture without weights."""

import copy
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from disinherit.client.huggingface.hub_folders import base_folder
from disinherit.client.huggingface.quantised import is_quantised_config, load_quantised
from disinherit.common.errors import CheckpointError, DisinheritError, InputError
from disinherit.common.text import one_line

_ADAPTER = "adapter_config.json"
_CONFIG = "config.json"
_BROUGHT = "base_model.model."
"""What names of an adapter's tensors begin with that take the place of the base's."""


def load_model(folder: Path) -> nn.Module:
    """Load a model, or an adapter on its base model, from a folder, with the dtype of its weights.

    Nothing is downloaded: the base of an adapter is a folder, or in the local cache of the hub.

    Args:
        folder: of `save_pretrained`, sharded or not.

    Raises:
        InputError: if it is no such folder.
        CheckpointError: if it cannot be loaded, or lacks weights of the model.
    """
    try:
        if (folder / _ADAPTER).is_file():
            return _load_adapter(folder)
        if (folder / _CONFIG).is_file():
            return _load(folder, None)
    except DisinheritError:
        raise
    except Exception as error:  # whatever the libraries raise about files that are not theirs
        raise CheckpointError(
            f"Expected a model of transformers or PEFT in {folder}, but it cannot be loaded",
            foreign=" ".join(str(error).split()),
        ) from error
    raise InputError(
        f"Expected a folder with {_CONFIG} or {_ADAPTER}, but {folder} has neither. Write it with "
        "save_pretrained, or give the model itself."
    )


def _load_adapter(folder: Path) -> nn.Module:
    config = peft.PeftConfig.from_pretrained(str(folder))
    base = base_folder(folder, config)
    weights = peft.utils.load_peft_weights(str(folder), device="cpu")
    given = {key.removeprefix(_BROUGHT): value for key, value in weights.items()}
    model = _load(base, config.task_type, given)
    _widen(model, given)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted: nn.Module = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    for one in said:  # what is not in its file would be random
        if "missing adapter keys" in str(one.message):
            raise CheckpointError(
                f"Expected {folder} with all weights of its adapter, but some are missing. Write "
                "it with save_pretrained, by the PEFT that made it",
                foreign=one_line(str(one.message), 200),
            )
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return adapted


def _widen(model: Any, given: Mapping[str, Tensor]) -> None:
    """Let the vocabulary of a base be as large as that of an adapter that brings the embedding.

    As of a chat model whose turns begin with tokens that the base has not.  The adapter has values
    for all rows, so that none stays at random.
    """
    embedding = model.get_input_embeddings()
    names = [name for name, module in model.named_modules() if module is embedding]
    rows = given.get(f"{names[0]}.weight") if names else None
    if rows is not None and rows.ndim == 2 and len(rows) != embedding.weight.shape[0]:
        model.resize_token_embeddings(len(rows), mean_resizing=False)


def _load(folder: Path, task: str | None, given: Collection[str] = ()) -> nn.Module:
    """Load a model as the class that its configuration names, else as the task of its adapter.

    Weights that an adapter gives, such as those of its head, may be missing.
    """
    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    listed = config.architectures
    named = str(listed[0]) if isinstance(listed, list) and listed else ""
    kind: Any = getattr(transformers, named, None)
    if task == "SEQ_CLS":
        kind = transformers.AutoModelForSequenceClassification
    elif task == "CAUSAL_LM":
        kind = transformers.AutoModelForCausalLM
    if not (isinstance(kind, type) and hasattr(kind, "from_pretrained")):
        raise InputError(
            f"Expected {folder} to name a class of transformers as its architecture, but got "
            f"{named!r}. Give the model itself."
        )
    if is_quantised_config(config):
        return load_quantised(kind, config, folder)
    model, found = kind.from_pretrained(
        str(folder), dtype="auto", local_files_only=True, output_loading_info=True
    )
    missing = sorted(set(found["missing_keys"]).difference(given))
    if missing:
        raise CheckpointError(
            f"Expected {folder} with all weights of {type(model).__name__}, but {missing[0]!r} is "
            f"one of {len(missing)} missing. Give a folder of this very class."
        )
    loaded: nn.Module = model
    return loaded


def without_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters take no memory; buffers keep their values."""
    kept = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for parameter, value in kept:
            parameter.data = value.new_zeros(()).expand(value.shape)
        memo: dict[int, Any] = {}
        for parameter, _ in kept:
            empty = nn.Parameter(parameter.data, parameter.requires_grad)
            memo[id(parameter)] = empty
        return copy.deepcopy(model, memo)
    finally:
        for parameter, value in kept:
            parameter.data = value


def with_weights(hollow: nn.Module) -> nn.Module:
    """Return a copy of a model of `without_weights`, with room for weights."""
    model = without_weights(hollow)  # a deep copy would have memory for each parameter
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = torch.zeros(parameter.shape, dtype=parameter.dtype)
    return model
