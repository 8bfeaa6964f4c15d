"""Folders of unlearned versions, which `from_pretrained` loads."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from disinherit.common.errors import InputError

_WEIGHTS = (
    ".bin .ckpt .gguf .h5 .index.json .msgpack .onnx .pt .pth .safetensors .tflite".split()  # noqa: SIM905
)
"""Ends of names of files that may hold weights of before."""

_OF_BEFORE = ("mergekit_config.yml",)
"""Files that say of what the version before was made: the new one was not made of that."""

BASE = "base"
"""Folder of the base model in that of an adapter."""


def save_model(
    load: Callable[[], Any],
    folder: Path,
    source: Path | None,
    *,
    with_base: bool,
    max_shard_size: str,
) -> str:
    """Write a model into a new folder, with all that its old folder has beside weights.

    How the old one was merged stays behind: an import would take it for that of the new one.

    Args:
        load: loads the model; one with an adapter is taken apart for its base.
        folder: the new folder.
        source: the old folder, with tokenizer and card; `None` without any.
        with_base: whether to write the base model of an adapter, too.
        max_shard_size: largest file of weights, such as `5GB`.

    Returns:
        For an adapter, id or path of its base as it is written; `""` for other models.

    Raises:
        InputError: if there is something in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"Expected a new or empty folder for a version, but {folder} is not.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()) if source is not None else ():
        stays = file.name.endswith(tuple(_WEIGHTS)) or file.name in _OF_BEFORE
        if file.is_file() and not stays:
            shutil.copyfile(file, folder / file.name)
    model = load()
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return ""
    if with_base:  # first, as what saves the adapter looks at it
        base = (folder / BASE).absolute()
        model.unload().save_pretrained(base, max_shard_size=max_shard_size)
        model = load()
    (config,) = model.peft_config.values()
    if with_base:
        config.base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    return config.base_model_name_or_path or ""
