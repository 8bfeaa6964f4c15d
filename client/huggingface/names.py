"""Names of tensors in models with adapters: those of the base model, where they are its tensors.

An adapter is a model of its own, that of its base with more tensors.  PEFT renames what it wraps::

    q_proj.weight      q_proj.base_layer.weight, beside q_proj.lora_A.default.weight and others
    classifier.weight  classifier.modules_to_save.default.weight, and the unused original

With the names of the base model, a change of the base is a change of the adapter's model, too, and
a saved copy inherits it as a fine-tuned layer does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

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
    """Return the tensors in use of a model, by own names, detached and on the CPU."""
    found = base_of(model).state_dict()
    return {own: value.detach().cpu() for name, value in found.items() if (own := own_name(name))}


class OwnNames:
    """Adds own names to a module; without adapters they are those that it has."""

    def named_parameters(self, *args: Any, **named: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters in use, as `torch.nn.Module` does."""
        adapted = _is_adapted(self)
        for name, parameter in super().named_parameters(*args, **named):  # type: ignore[misc]
            if (own := own_name(name) if adapted else name) is not None:
                yield own, parameter

    def state_dict(self, *args: Any, **named: Any) -> dict[str, Any]:
        """Return the tensors in use, as `torch.nn.Module` does."""
        found: dict[str, Any] = super().state_dict(*args, **named)  # type: ignore[misc]
        if not _is_adapted(self):
            return found
        for name in [*found]:
            own = own_name(name)
            if own != name:
                value = found.pop(name)
                if own is not None:
                    found[own] = value
        return found

    def load_state_dict(self, weights: Mapping[str, Tensor], *args: Any, **named: Any) -> Any:
        """Load tensors by own names, as `torch.nn.Module` does; unused originals stay."""
        given = dict(weights)
        whole = super().state_dict() if _is_adapted(self) else {}  # type: ignore[misc]
        for name, value in whole.items():
            own = own_name(name)
            if own is None:
                given[name] = value
            elif own != name and own in given:
                given[name] = given.pop(own)
        return super().load_state_dict(given, *args, **named)  # type: ignore[misc]
