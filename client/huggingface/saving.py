"""Folders of unlearned versions, which `from_pretrained` loads."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from disinherit.client.huggingface.hub_folders import BASE, base_folder
from disinherit.common.errors import InputError
from disinherit.common.text import load_json

_KEPT = re.compile(
    r"(?:config|added_tokens|special_tokens_map|generation_config|(?:\w+_)?(?:pre)?processor_config"
    r"|feature_extractor_config|tokenizer(?:_config)?|chat_template"
    r"|(?:\w+_)?vocab(?:[-_]\w+)?|normalizer|emoji|byte_maps|tekken|word_shape|word_pronunciation"
    r")\.json|vocab\.txt|merges\.txt|dict\.txt|bpe\.codes|chat_template\.jinja"
    r"|(?:\w+\.)?(?:tokenizer|spiece|spm|spm_char|bpe|sentencepiece)(?:\.bpe)?\.model(?:\.v\d+)?"
    r"|[\w-]+\.(?:tokenizer|tiktoken)"
    r"|(?:licen[cs]e|notice|copying|use_policy)(?:[-_]\w+)?(?:\.md|\.txt)?",
    re.ASCII | re.IGNORECASE,
)
"""Names of files that stay: of tokenizers and processors, configurations and licences.

All else may hold weights of before, or figures of them, whatever it is called.
"""

_TEMPLATES = "additional_chat_templates"
_ADAPTER = "adapter_config.json"


def stays(name: str) -> bool:
    """Return whether a file of the version before belongs to the new one, too.

    Example:
        >>> stays("tokenizer.json"), stays("LICENSE"), stays("weights.npz"), stays("results.json")
        (True, True, False, False)
    """
    return _KEPT.fullmatch(name) is not None


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and leave nothing in it if what is written there fails.

    Raises:
        InputError: if there is something in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"Expected a new or empty folder for a version, but {folder} is not.")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for one in folder.iterdir():
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
        if is_new:
            folder.rmdir()
        raise


def save_model(
    load: Callable[[], Any], folder: Path, source: Path | None, *, max_shard_size: str
) -> None:
    """Write a model into a new folder, with tokenizer, configuration and licence of its old one.

    Args:
        load: loads the model.
        folder: the new folder.
        source: the old folder; `None` without any.
        max_shard_size: largest file of weights, such as `5GB`.
    """
    _copy(source, folder)
    load().save_pretrained(folder, max_shard_size=max_shard_size)


def save_adapter(
    load: Callable[[], Any],
    folder: Path,
    source: Path | None,
    *,
    with_base: bool,
    named: str,
    max_shard_size: str,
) -> None:
    """Write an adapter into a new folder, as `save_model` does.

    PEFT reads the name of a base as a path from where it runs, or as an id.  So that of a base in
    the folder is absolute.

    Args:
        load: loads the adapter; what is loaded is taken apart.
        folder: the new folder.
        source: the old folder; `None` without any.
        with_base: whether to write the base model, too.
        named: how to name the base; `""` for the name that it has, or its folder if it is written.
        max_shard_size: largest file of weights, such as `5GB`.
    """
    model = load()
    ((adapter, config),) = model.peft_config.items()
    name, revision = config.base_model_name_or_path or "", getattr(config, "revision", None)
    old_base = _old_base(source, config)
    place = (folder / BASE).absolute()
    if with_base:  # first, as what saves the adapter looks at it
        place.mkdir()
        _copy(old_base, place)
        model.unload().save_pretrained(place, max_shard_size=max_shard_size)
        model, name, revision = load(), str(place), None
        config = model.peft_config[adapter]
    if named:
        name, revision = named, None
    _copy(source, folder)
    # It compares the vocabulary with that of the base, which it would look up in the network.
    config.base_model_name_or_path = str(place if with_base else old_base or "")
    model.save_pretrained(folder)
    for file in [*(folder / adapter).glob("adapter_*")]:  # where PEFT writes other than `default`
        file.replace(folder / file.name)
    if adapter != BASE and (folder / adapter).is_dir():
        (folder / adapter).rmdir()
    (folder / "README.md").unlink(missing_ok=True)  # of PEFT, with the path of the base
    written = load_json((folder / _ADAPTER).read_bytes())
    written |= {"base_model_name_or_path": name, "revision": revision}
    (folder / _ADAPTER).write_text(json.dumps(written, indent=2, sort_keys=True), "utf-8")


def _old_base(source: Path | None, config: Any) -> Path | None:
    try:
        return None if source is None else base_folder(source, config)
    except InputError:
        return None  # gone, since it was loaded


def _copy(source: Path | None, folder: Path) -> None:
    """Copy what stays of a version."""
    if source is None:
        return
    for file in sorted(source.iterdir()):
        if file.is_file() and stays(file.name):
            shutil.copyfile(file, folder / file.name)
    for file in sorted((source / _TEMPLATES).glob("*.jinja")):
        (folder / _TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / _TEMPLATES / file.name)
