"""`config.json` of transformers and timm: class names, quantisation, and a hint at the start."""

from collections.abc import Mapping
from typing import Any

from disinherit.common.graph.labels import SEQUENCES
from disinherit.common.graph.recipes import Recipe
from disinherit.common.limits import CLASSES, NAME
from disinherit.families.evidence import Claim, Relation, Said, Source
from disinherit.families.model_cards import parent_name
from disinherit.families.reading import table_of, texts

CONFIG = "config.json"

_KEYS = (
    *("architectures", "model_type", "id2label", "transformers_version", "quantization_config"),
    *("_name_or_path", "architecture", "pretrained_cfg"),
)
_CAUSAL = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of classes of transformers for causal language models."""


def configures_model(config: Mapping[str, Any]) -> bool:
    """Whether a config is one that transformers or timm wrote; other programs have some, too.

    Args:
        config: content of a `config.json`.
    """
    return any(key in config for key in _KEYS)


def claims_of_config(key: str, config: Mapping[str, Any]) -> Said:
    """Return the hint of a config: what the model was loaded from before it was saved.

    That may be a folder of another machine, an earlier stage, or the model itself.

    Args:
        key: key of the model.
        config: content of its `config.json`.

    Raises:
        DataError: if the hint is no possible name.
    """
    hint = config.get("_name_or_path")
    if not isinstance(hint, str) or not hint.strip():
        return [], []
    relation = Relation.QUANTIZED if table_of(config.get("quantization_config")) else None
    return [Claim(key, parent_name(hint), Source.CONFIG, relation or Relation.UNKNOWN)], []


def quantisation(config: Mapping[str, Any]) -> Recipe | None:
    """Return how a model was quantised, if its config tells it fully: int8 and nf4 of bitsandbytes.

    Args:
        config: content of a `config.json`.
    """
    found = table_of(config.get("quantization_config"))
    if found.get("quant_method") != "bitsandbytes":
        return None
    if found.get("load_in_8bit") is True:
        return Recipe("int8")
    four = found.get("load_in_4bit") is True and found.get("bnb_4bit_quant_type") == "nf4"
    return Recipe("nf4") if four and not found.get("bnb_4bit_use_double_quant") else None


def class_names(config: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the class names of a model in the order of its rows, and whether they mean something.

    Args:
        config: content of a `config.json`.

    Returns:
        The names, none if the config has none or they are malformed, and those of sequences for a
        causal language model; and `False` if they are the placeholders that transformers makes up.
    """
    kinds = texts(config.get("architectures"))
    if kinds and kinds[0].endswith(_CAUSAL) and not config.get("is_encoder_decoder"):
        return SEQUENCES, True
    names = _by_index(table_of(config.get("id2label")))
    if not names:  # timm
        pretrained = table_of(config.get("pretrained_cfg"))
        names = texts(pretrained.get("label_names") or config.get("label_names"))
    fits = len(set(names)) == len(names) <= CLASSES.most and all(
        len(name) <= NAME.most and name.encode("utf-8", "replace").decode() == name
        for name in names
    )
    if not fits:
        return (), True
    return tuple(names), not names or names != [f"LABEL_{i}" for i in range(len(names))]


def _by_index(table: Mapping[str, Any]) -> list[str]:
    try:
        rows = {int(index): name for index, name in table.items()}
    except (ValueError, TypeError):
        return []
    if sorted(rows) != list(range(len(rows))):
        return []
    names = [rows[index] for index in range(len(rows))]
    return names if all(isinstance(name, str) for name in names) else []
