"""Sources of models: modules, and folders of `save_pretrained`, read tensor by tensor."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from disinherit.client.huggingface.hub_folders import find_folder
from disinherit.client.huggingface.models import load_model
from disinherit.client.huggingface.names import own_weights
from disinherit.client.huggingface.quantised import is_quantised_config
from disinherit.common.errors import CheckpointError, InputError
from disinherit.common.tensors.checkpoints import make_manifest
from disinherit.common.tensors.lazy import LazyTensors
from disinherit.common.tensors.shards import ShardFiles
from disinherit.common.tensors.stored import StoredTensors
from disinherit.common.text import load_json

_ADAPTER = "adapter_config.json"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class ModelSource:
    """Where a model comes from.

    Attributes:
        model: the model; its parameters take no memory where the files are all there is to them.
        weights: its tensors by own names; read one by one from files, where it is not loaded.
        folder: its folder; `None` for a module.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    folder: Path | None


@contextmanager
def opened_source(model_id: str, model: str | Path | nn.Module) -> Iterator[ModelSource]:
    """Open a model.

    Args:
        model_id: what to call it in messages.
        model: a folder of `save_pretrained`, an id in the local cache of the hub, or a module.

    Raises:
        InputError: if it is not here, or is a quantised module.
        CheckpointError: if its folder cannot be loaded.
    """
    if isinstance(model, nn.Module):
        if getattr(model, "hf_quantizer", None) is not None:
            raise InputError(
                f"Expected the folder of quantised model {model_id!r}, but got the model itself. "
                "Write it with save_pretrained."
            )
        yield ModelSource(model, own_weights(model), None)
        return
    folder = find_folder(model)
    with _opened_shards(folder) as opened:
        if opened is not None:
            hollow, files = opened
            manifest = make_manifest(LazyTensors(files.names, files.read))
            yield ModelSource(hollow, StoredTensors(files, manifest), folder)
            return
    loaded = load_model(folder)
    yield ModelSource(loaded, own_weights(loaded), folder)


@contextmanager
def _opened_shards(folder: Path) -> Iterator[tuple[nn.Module, ShardFiles] | None]:
    """Open the files of a model, if they are all there is to know of its weights.

    They are where each tensor of the files has the name, shape and one dtype of a tensor of the
    model, as `from_pretrained` would load it without a change.

    Args:
        folder: of `save_pretrained`.

    Yields:
        The model, whose parameters take no memory, and its open files; `None` for any other model,
        which has to be loaded.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        kind = getattr(transformers, (config.architectures or [""])[0], None)
        simple = not is_quantised_config(config) and not (folder / _ADAPTER).is_file()
        files = ShardFiles(folder / name for name in _names(folder)) if simple else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, CheckpointError):
        yield None  # whoever loads it says what is wrong
        return
    if files is None:
        yield None
        return
    with files:
        own = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
        model = _hollow(kind, config, files, folder) if own else None
        yield None if model is None else (model, files)


@contextmanager
def _without_parameters() -> Iterator[None]:
    """Let modules that this thread makes have parameters without memory, and buffers as they are.

    `torch.device("meta")` would leave buffers without their values, which no file has.
    """
    register, own_thread = nn.Module.register_parameter, threading.get_ident()

    def without(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        mine = threading.get_ident() == own_thread
        if mine and parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = without  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _names(folder: Path) -> list[str]:
    if (folder / _SINGLE).is_file():
        return [_SINGLE]
    index = load_json((folder / _INDEX).read_bytes())
    return sorted({Path(str(name)).name for name in index["weight_map"].values()})


def _hollow(kind: Any, config: Any, files: ShardFiles, folder: Path) -> nn.Module | None:
    """Return a model whose parameters take no memory; `None` if it is not exactly the files."""
    kinds = {name: files.kind(name) for name in files.names}
    dtypes = {dtype for dtype, _ in kinds.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        return None
    (dtype,) = dtypes
    with _without_parameters():
        model: Any = kind._from_config(config, dtype=dtype)
    model.tie_weights()
    shapes = {name: tuple(value.shape) for name, value in own_weights(model).items()}
    if shapes != {name: tuple(shape) for name, (_, shape) in kinds.items()}:
        return None
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.zeros((), dtype=dtype).expand(parameter.shape)
                    made[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
    if any(name in kinds for name, _ in model.named_buffers()):
        return None  # its values would be needed
    if (folder / _GENERATION).is_file() and hasattr(model, "generation_config"):
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    hollow: nn.Module = model.eval()
    return hollow
