"""PEFT adapters: `adapter_config.json` beside `adapter_model.safetensors`."""

import math
from collections.abc import Mapping
from typing import Any

from disinherit.common.graph.recipes import Recipe
from disinherit.families.evidence import Claim, FamilyFinding, Kind, Relation, Said, Source
from disinherit.families.model_cards import parent_name

ADAPTER_CONFIG = "adapter_config.json"
_OTHER_SCALES = ("rank_pattern", "alpha_pattern", "use_dora", "layer_replication")


_MOST = 10**6


def claims_of_adapter(key: str, config: Mapping[str, Any]) -> Said:
    """Return what the config of an adapter says of its base.

    Args:
        key: key of the adapter.
        config: content of its `adapter_config.json`.

    Raises:
        DataError: if the name of the base is malformed.
    """
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip():
        text = f"The adapter config names no base: base_model_name_or_path is {base!r}."
        return [], [FamilyFinding(Kind.UNKNOWN_PARENT, key, text)]
    named = revision if isinstance(revision, str) else ""
    claim = Claim(key, parent_name(base), Source.ADAPTER_CONFIG, Relation.ADAPTER, named)
    return [claim], []


def fold_recipe(config: Mapping[str, Any]) -> Recipe | None:
    """Return how an adapter is folded into its base; `None` if the config does not tell it fully.

    Args:
        config: content of its `adapter_config.json`.
    """
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if config.get("peft_type") != "LORA" or any(map(config.get, _OTHER_SCALES)):
        return None
    if type(rank) is not int or type(alpha) not in (int, float) or alpha is None:
        return None
    if not (0 < rank < _MOST and 0 < alpha < _MOST):
        return None
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    across = {"fan_in_fan_out": "true"} if config.get("fan_in_fan_out") else {}
    return Recipe("fold", {"scale": repr(float(scale)), **across})
