"""Quantised copies by bitsandbytes, as models in torch alone.

A copy is measured with the values that its integers stand for.  It keeps the integers: its tensors
have the names, dtypes and shapes of its files, so its digest is theirs, and its recipe can make it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.huggingface.names import own_weights
from disinherit.common.errors import CheckpointError
from disinherit.common.limits import shown
from disinherit.common.recipes.quantised import is_quantised, unquantised

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"


class QuantisedLinear(nn.Module):
    """A linear layer whose matrix is quantised; it is not trained.

    Args:
        plain: the layer that it replaces, of which the bias is kept.
        parts: tensors of the quantised matrix, by names below the layer, such as `weight.absmax`.

    Raises:
        CheckpointError: if the parts do not fit each other or the layer.
    """

    def __init__(self, plain: nn.Linear, parts: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._shape = tuple(plain.weight.shape)
        self.bias = plain.bias
        self._buffers.update(parts)  # names with dots, which `register_buffer` refuses
        self._matrix()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs `[..., rows]` of inputs `[..., columns]`."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return F.linear(inputs, self._matrix().to(inputs.dtype), bias)

    def _matrix(self) -> Tensor:
        parts = {name: part for name, part in self._buffers.items() if part is not None}
        return unquantised(parts, "weight", self._shape)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        own = {prefix + name for name in self._buffers}  # torch takes a dot for a module
        unexpected_keys[:] = [name for name in unexpected_keys if name not in own]


def is_quantised_config(config: Any) -> bool:
    """Return whether a configuration of transformers is that of a copy by bitsandbytes."""
    how = getattr(config, "quantization_config", None)
    return isinstance(how, dict) and how.get("quant_method") == "bitsandbytes"


def load_quantised(kind: Any, config: Any, folder: Path) -> nn.Module:
    """Load a quantised copy; bitsandbytes is not needed.

    Args:
        kind: the class of transformers.
        config: its configuration.
        folder: its files of safetensors, one or shards with an index.

    Raises:
        CheckpointError: if files are missing or malformed, a quantised tensor is not the matrix of
            a linear layer, or the files have other tensors than the model.
    """
    weights = _read(folder)
    model: Any = kind(config)
    modules = dict(model.named_modules())
    loaded: set[str] = set()
    for name in [name for name in weights if is_quantised(weights, name)]:
        layer, _, last = name.rpartition(".")
        plain = modules.get(layer) if last == "weight" else None
        if not isinstance(plain, nn.Linear):
            raise CheckpointError(
                f"Expected quantised matrices of linear layers alone, but {shown(name)} is of "
                f"{type(plain).__name__}."
            )
        biases = {f"{layer}.bias"} if plain.bias is not None else set()
        parts = {
            key.removeprefix(f"{layer}."): value
            for key, value in weights.items()
            if key.startswith(f"{layer}.") and key not in biases
        }
        loaded |= {f"{layer}.{part}" for part in parts}
        model.set_submodule(layer, QuantisedLinear(plain, parts))
    names = own_weights(model).keys()
    if names != weights.keys():
        odd = min(names ^ weights.keys())
        raise CheckpointError(
            f"Expected {folder} with exactly the tensors of {type(model).__name__}, but "
            f"{shown(odd)} is {'missing' if odd in names else 'not one of them'}."
        )
    plain_ones = {name: value for name, value in weights.items() if name not in loaded}
    model.load_state_dict(plain_ones, strict=False, assign=True)
    model.tie_weights()
    if (folder / _GENERATION).is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    copy: nn.Module = model.eval()
    return copy


def _read(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a folder, one file or shards."""
    files = [_SINGLE]
    found: dict[str, Tensor] = {}
    try:
        if not (folder / _SINGLE).is_file() and (folder / _INDEX).is_file():
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            files = sorted({Path(str(name)).name for name in index["weight_map"].values()})
        for name in files:
            found |= load_file(folder / name)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected the tensors of a quantised copy in {folder}, but they cannot be read",
            foreign=" ".join(str(error).split()),
        ) from error
    return found
