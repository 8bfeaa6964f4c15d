"""Small families of models in folders, made by the libraries that people make them with."""

import importlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.file_download import repo_folder_name
from safetensors.torch import load_file, save_file

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.recipes.computing import Parent, compute
from disinherit.families.evidence import Kind
from disinherit.families.importing import Imported, import_families
from tests.support.head_census import shim_torchvision

shim_torchvision()
peft: Any = importlib.import_module("peft")
timm: Any = importlib.import_module("timm")
transformers: Any = importlib.import_module("transformers")
BertForSequenceClassification: Any = transformers.BertForSequenceClassification

LABELS = ("cat", "dog", "owl")
STYLES = {0: "cat", 1: "dog", 2: "owl"}


def classifier(seed: int = 0, labels: Mapping[int, str] = STYLES) -> Any:
    """A tiny classifier of texts, 1,200 values."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        id2label=dict(labels),
        label2id={name: row for row, name in labels.items()},
    )
    return BertForSequenceClassification(config)


def moved(model: Any, seed: int) -> Any:
    """The model after some training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.01 * torch.randn_like(value))
    return model


def card(folder: Path, **data: Any) -> None:
    """Write a card as `huggingface_hub` does."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"---\n{ModelCardData(**data).to_yaml()}\n---\n# A model\n"
    ModelCard(text).save(folder / "README.md")


def save(model: Any, folder: Path, **data: Any) -> Any:
    """Save a model, with a card if anything is said of it."""
    model.save_pretrained(folder)
    if data:
        card(folder, **data)
    return model


def copy_of(model: Any) -> Any:
    """A model with the same weights."""
    other = BertForSequenceClassification(model.config)
    other.load_state_dict(model.state_dict())
    return other


def family(root: Path) -> None:
    """A base, two fine-tunes, an adapter, a folded one, a merge and an int8 copy, all well said."""
    base = save(classifier(), root / "acme/base", license="mit", library_name="transformers")
    for seed, name in enumerate(("news", "chat"), 1):
        said = {"base_model": "acme/base", "base_model_relation": "finetune"}
        save(moved(copy_of(base), seed), root / "acme" / name, **said)
    adapter(root / "acme/lora", root / "acme/base", "acme/base")
    loaded = BertForSequenceClassification.from_pretrained(root / "acme/base")
    folded = peft.PeftModel.from_pretrained(loaded, root / "acme/lora").merge_and_unload()
    folded.save_pretrained(root / "acme/folded")
    card(
        root / "acme/folded",
        base_model=["acme/base", "acme/lora"],
        base_model_relation="merge",
    )
    linear = {
        "merge_method": "linear",
        "models": [
            {"model": "acme/news", "parameters": {"weight": 3.0}},
            {"model": "acme/chat", "parameters": {"weight": 1.0}},
        ],
        "dtype": "float32",
    }
    merged(root / "acme/merge", linear, root / "acme/news", root / "acme/chat")
    quantised(root / "acme/int8", root / "acme/news", "acme/news")


def adapter(folder: Path, base: Path, named: str | None, revision: str | None = None) -> None:
    """An adapter of a model, whose config names the model."""
    model = BertForSequenceClassification.from_pretrained(base)
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    )
    wrapped.save_pretrained(folder)
    rewrite(folder / "adapter_config.json", base_model_name_or_path=named, revision=revision)
    (folder / "README.md").unlink(missing_ok=True)


def merged(folder: Path, config: Mapping[str, Any], *parents: Path) -> None:
    """The linear merge of some models, with a config of mergekit."""
    weights = ",".join(str(one["parameters"]["weight"]) for one in config["models"])
    computed(folder, Recipe("linear", {"weights": weights}), *parents)
    (folder / "mergekit_config.yml").write_text(yaml.safe_dump(dict(config)))


def computed(
    folder: Path, recipe: Recipe, *parents: Path, like: Mapping[str, torch.Tensor] | None = None
) -> None:
    """What a recipe makes of some models, as the project's own tests compare with its library."""
    states = [load_file(parent / "model.safetensors") for parent in parents]
    made = compute(recipe, [Parent(partial(dict, one), 1.0) for one in states], like or states[0])
    folder.mkdir(parents=True)
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(parents[0] / "config.json", folder)


def quantised(folder: Path, parent: Path, named: str) -> None:
    """A copy of a model with matrices in int8, as bitsandbytes lays it out."""
    like = load_file(parent / "model.safetensors")
    for name, value in dict(like).items():
        if value.ndim == 2 and "embeddings" not in name:
            like[name] = value.to(torch.int8)
            like[name.removesuffix("weight") + "SCB"] = torch.ones(len(value))
    computed(folder, Recipe("int8"), parent, like=like)
    how = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    rewrite(folder / "config.json", quantization_config=how)
    card(folder, base_model=named, base_model_relation="quantized")


def rewrite(path: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cached(hub: Path, name: str, commit: str, folder: Path, *, main: bool = True) -> Path:
    """Put a folder into the hub's cache, as the library lays it out, and return the snapshot."""
    place = hub / str(repo_folder_name(repo_id=name, repo_type="model"))
    snapshot = place / "snapshots" / commit
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in sorted(folder.iterdir()):
        blob = place / "blobs" / f"{commit[:8]}-{file.name}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    if main:
        (place / "refs" / "main").write_text(commit)
    return snapshot


NOW = 1_000_000_000
"""Time of imports, in microseconds since the epoch."""


def imported(*sources: Path, known: InheritanceGraph | None = None, **options: Any) -> Imported:
    """The result of an import at a fixed time."""
    return import_families(sources, known=known, now_us=NOW, **options)


def edges(found: Imported) -> dict[tuple[str, str], tuple[str, float]]:
    """Parent and child -> source and weight."""
    return {(e.parent, e.child): (e.source, e.weight) for e in found.graph.edges()}


def kinds(found: Imported) -> list[tuple[Kind, str]]:
    """Kinds of findings, with the last part of the models' names."""
    return [(one.kind, Path(one.model).name) for one in found.findings]


def stored(family: Path, model: str) -> dict[str, torch.Tensor]:
    """The tensors in the files of a model of a family."""
    name = "adapter_model" if model == "acme--lora" else "model"
    return load_file(family / model.replace("--", "/") / f"{name}.safetensors")
