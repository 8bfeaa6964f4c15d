"""Folders of models without the libraries that write them: weights, cards and configs."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from disinherit.families.importing import Imported


def model(folder: Path, value: float, **card: Any) -> Path:
    """Write a model, with a card if there is something to say."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.full((2,), value)}, folder / "model.safetensors")
    if card:
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# A model\n")
    return folder


def adapter(folder: Path, base: str, revision: str | None = None) -> Path:
    """Write an adapter, with its config."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"base_model.model.w.lora_A.weight": torch.full((2,), float(len(str(folder))))}
    save_file(state, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def snapshot(hub: Path, name: str, commit: str, *refs: str) -> Path:
    """Return the folder of a commit in the hub's cache, with branches and tags that mean it."""
    cache = hub / f"models--{name.replace('/', '--')}"
    for ref in refs:
        (cache / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (cache / "refs" / ref).write_text(commit)
    return cache / "snapshots" / commit


def parents(found: Imported) -> dict[str, str]:
    """Return child -> parents, in one text."""
    named: dict[str, list[str]] = {}
    for edge in found.graph.edges():
        named.setdefault(edge.child, []).append(edge.parent)
    return {child: " ".join(sorted(group)) for child, group in named.items()}


def listed(found: Imported) -> list[tuple[str, str]]:
    """Return kind and model of the findings."""
    return [(one.kind.value, one.model) for one in found.findings]
