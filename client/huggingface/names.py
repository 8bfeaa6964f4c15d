"""Names of tensors in models with adapters: those of the base model, where they are its tensors.

An adapter is a model of its own, that of its base with more tensors.  PEFT renames what it wraps::

    q_proj.weight      q_proj.base_layer.weight, beside q_proj.lora_A.default.weight and others
    classifier.weight  classifier.modules_to_save.default.weight, and the unused original

With the names of the base model, a change of the base is a change of the adapter's model, too, and
a saved copy inherits it as a fine-tuned layer does.

A tied tensor has the name under which `save_pretrained` writes it, so the digest of a model is that
of its files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError

_WRAPPED = "base_layer"
_SAVED, _UNUSED = "modules_to_save", "original_module"


def base_of(model: nn.Module) -> nn.Module:
    """Return the model in which the adapters of a PEFT model sit, or the model itself.

    Raises:
        InputError: if they sit elsewhere, or there is more than one.
    """
    wrapper: Any = model
    if getattr(wrapper, "_hf_peft_config_loaded", False):
        raise InputError(
            f"Expected an adapter in a PeftModel, but got a {type(wrapper).__name__} with one of "
            "its own (`add_adapter`). Load it with peft.PeftModel.from_pretrained."
        )
    if not _is_adapted(wrapper) or not hasattr(wrapper, "get_base_model"):
        return model
    configs: Mapping[str, Any] = wrapper.peft_config
    if len(configs) != 1 or any(config.is_prompt_learning for config in configs.values()):
        raise InputError(
            f"Expected a PEFT model with one adapter in its layers, such as LoRA, but got "
            f"{', '.join(f'{name}: {config.peft_type}' for name, config in configs.items())}."
        )
    base: nn.Module = wrapper.get_base_model()
    return base


def _is_adapted(model: object) -> bool:
    """Whether PEFT has put adapters into a model, or it is the wrapper of one."""
    return hasattr(model, "peft_config")


def trainable(model: nn.Module) -> nn.Module:
    """Let an adapter's own tensors be trained if none is, as after loading it; return the model."""
    adapters: Any = getattr(model, "base_model", None)
    if _is_adapted(model) and not any(p.requires_grad for p in model.parameters()):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(adapters.prefix in name or f".{_SAVED}." in name)
    return model


def own_name(name: str) -> str | None:
    """Return the name of a tensor in the base model's terms; `None` for an unused original.

    Example:
        >>> own_name("q.base_layer.weight"), own_name("c.modules_to_save.default.bias")
        ('q.weight', 'c.bias')
        >>> own_name("q.lora_A.default.weight"), own_name("c.original_module.bias")
        ('q.lora_A.default.weight', None)
    """
    parts = name.split(".")
    if _UNUSED in parts:
        return None
    if _SAVED in parts:
        at = parts.index(_SAVED)
        del parts[at : at + 2]
    return ".".join(part for part in parts if part != _WRAPPED)


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors in use of a model, by own names, each once, detached and on the CPU.

    Those of a model without any, on the device `meta`, stay there.
    """
    found = {one.own: one.tensor.detach() for one in _places(base_of(model)).values() if one.listed}
    return {name: value if value.is_meta else value.cpu() for name, value in found.items()}


def without_tied_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state_dict of a model without further names of tied tensors."""
    places = _places(base_of(model))
    further = {name for name, one in places.items() if not one.listed}
    return {name: value for name, value in weights.items() if name not in further}


def fill_unused(model: nn.Module) -> None:
    """Give unused originals, in place, the values of what takes their place.

    Nothing keeps their own, and those of before would still have what was forgotten.
    """
    for module in model.modules():
        saved: Any = getattr(module, _SAVED, None)
        unused: Any = getattr(module, _UNUSED, None)
        if isinstance(saved, nn.ModuleDict) and isinstance(unused, nn.Module):
            (used,) = saved.values()
            unused.load_state_dict(used.state_dict())


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A place of a tensor in a model.

    Attributes:
        tensor: the tensor.
        own: its own name.
        listed: whether this is its first place, under whose name it is kept.
    """

    tensor: Tensor
    own: str
    listed: bool


def _places(model: nn.Module) -> dict[str, _Place]:
    """Return name -> place of the tensors in use, in the order of `torch.nn.Module`."""
    adapted = _is_adapted(model)
    tied: Any = getattr(model, "_tied_weights_keys", None) or ()
    own: dict[str, str] = {}
    firsts: dict[int, str] = {}
    held = nn.Module.state_dict(model, keep_vars=True)
    for name, tensor in held.items():
        if (known := own_name(name) if adapted else name) is None:
            continue
        own[name] = known
        before = firsts.setdefault(id(tensor), known)
        if any(re.fullmatch(pattern, before) for pattern in tied):  # as files leave it out
            firsts[id(tensor)] = known
    return {
        name: _Place(held[name], first := firsts[id(held[name])], known == first)
        for name, known in own.items()
    }


class OwnNames:
    """Adds own names to a module, of which a tied tensor has one, as in its files."""

    def named_parameters(self, *args: Any, **named: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters in use, as `torch.nn.Module` does."""
        if args or named.keys() - {"recurse", "remove_duplicate"} or not named.get("recurse", True):
            yield from super().named_parameters(*args, **named)  # type: ignore[misc]
            return
        for one in _places(cast("nn.Module", self)).values():
            if one.listed and isinstance(one.tensor, nn.Parameter):
                yield one.own, one.tensor

    def state_dict(self, *args: Any, **named: Any) -> dict[str, Any]:
        """Return the tensors in use, as `torch.nn.Module` does."""
        if args or named.keys() - {"keep_vars"}:
            whole: dict[str, Any] = super().state_dict(*args, **named)  # type: ignore[misc]
            return whole
        listed = [one for one in _places(cast("nn.Module", self)).values() if one.listed]
        if named.get("keep_vars"):
            return {one.own: one.tensor for one in listed}
        return {one.own: one.tensor.detach() for one in listed}

    def load_state_dict(self, weights: Mapping[str, Tensor], *args: Any, **named: Any) -> Any:
        """Load tensors by own names, as `torch.nn.Module` does; unused originals stay."""
        module = cast("nn.Module", self)
        places = _places(module)
        own = {one.own for one in places.values()}
        given = {name: value for name, value in weights.items() if name not in own}  # refused
        for name, value in nn.Module.state_dict(module).items():
            if name not in places:
                given[name] = value
            elif places[name].own in weights:
                given[name] = weights[places[name].own]
        return super().load_state_dict(given, *args, **named)  # type: ignore[misc]

    def load_each(self, weights: Mapping[str, Tensor]) -> None:
        """Load tensors by own names one by one: no second copy of the model is in memory.

        Raises:
            RuntimeError: if names or shapes differ, as `load_state_dict` does.
        """
        listed = [one for one in _places(cast("nn.Module", self)).values() if one.listed]
        if {one.own for one in listed} != weights.keys():
            self.load_state_dict(dict(weights))
            return
        with torch.no_grad():
            for one in listed:
                value = weights[one.own]
                if value.shape != one.tensor.shape:
                    raise RuntimeError(
                        f"size mismatch for {one.own}: {list(value.shape)} are given, and the "
                        f"model has {list(one.tensor.shape)}."
                    )
                one.tensor.copy_(value)
