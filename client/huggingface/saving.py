"""Folders of unlearned versions, which `from_pretrained` loads."""

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from disinherit.client.huggingface.cards import CARD, card_of
from disinherit.client.huggingface.hub_folders import BASE, base_folder
from disinherit.client.huggingface.kept_models import KeptModel
from disinherit.client.huggingface.quantised import is_quantised_config
from disinherit.client.store.ledger import LedgerEntry
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
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and leave nothing in it if what is written there fails.

    Raises:
        InputError: if there is something in the folder, or it cannot be made.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Expected a new or empty folder for a version, but {folder} cannot be one: "
            f"{error.strerror}."
        ) from error
    if any(folder.iterdir()):
        raise InputError(f"Expected a new or empty folder for a version, but {folder} is not.")
    try:
        yield
    except BaseException:
        for one in folder.iterdir():
            shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
        if is_new:
            folder.rmdir()
        raise


def save_version(
    model_id: str,
    kept: KeptModel,
    folder: Path,
    load: Callable[[], Any],
    made_by: Sequence[LedgerEntry],
    *,
    has_new_base: bool,
    base_model: str,
    attestation: str,
    max_shard_size: str,
) -> None:
    """Write a version into a new folder (`HuggingFaceOwner.save`).

    Args:
        model_id: the version.
        kept: what its owner keeps of it.
        folder: the new folder.
        load: loads the version; what is loaded may be taken apart.
        made_by: the entries of the owner's ledger that led to it, latest first.
        has_new_base: whether it is an adapter whose base has changed.
        base_model: id of its base on the hub; `""` if it is not given.
        attestation: where the attestation of the latest request is; `""` if there is none.
        max_shard_size: largest file of weights, such as `5GB`.

    Raises:
        InputError: if there is something in the folder, the card cannot be read, or the base is
            that of before.
    """
    configs: Mapping[str, Any] = getattr(kept.hollow, "peft_config", {})
    before = [one.base_model_name_or_path or "" for one in configs.values()]
    if has_new_base and base_model and base_model in before:
        raise InputError(
            f"Expected the id under which the new base of {model_id!r} is published, but "
            f"{base_model!r} is the base of before, which knows what was forgotten. Publish the "
            "folder base under another id and name that, or name none."
        )
    with_base = has_new_base or (bool(configs) and kept.folder is None)
    made_of: str | None = base_model or kept.origin
    relation = "finetune"
    if configs:
        made_of, relation = base_model or (None if with_base else before[0]), "adapter"
    elif is_quantised_config(getattr(kept.hollow, "config", None)):
        made_of, relation = base_model, "quantized"
    card = card_of(
        kept.folder,
        folder.name,
        made_by,
        base_model=made_of,
        relation=relation,
        attestation=attestation,
    )
    with _new_folder(folder):
        _copy(kept.folder, folder)
        if configs:
            base = folder / BASE if with_base else None
            _save_adapter(load, folder, kept.folder, base, base_model, max_shard_size)
        else:
            load().save_pretrained(folder, max_shard_size=max_shard_size)
        if card:
            (folder / CARD).write_text(card, "utf-8", newline="")


def _save_adapter(
    load: Callable[[], Any],
    folder: Path,
    source: Path | None,
    base: Path | None,
    named: str,
    max_shard_size: str,
) -> None:
    """Write an adapter, and its base if there is a folder for it.

    PEFT reads the name of a base as a path from where it runs, or as an id.  So that of a base in
    the folder is absolute, unless it is named otherwise.
    """
    model = load()
    ((adapter, config),) = model.peft_config.items()
    name, revision = config.base_model_name_or_path or "", getattr(config, "revision", None)
    old_base = _old_base(source, config)
    if base is not None:  # first, as what saves the adapter looks at it
        base = base.absolute()
        base.mkdir()
        _copy(old_base, base)
        model.unload().save_pretrained(base, max_shard_size=max_shard_size)
        model, name, revision = load(), str(base), None
        config = model.peft_config[adapter]
    if named:
        name, revision = named, None
    # It compares the vocabulary with that of the base, which it would look up in the network.
    config.base_model_name_or_path = str(base or old_base or "")
    with warnings.catch_warnings():  # that it writes an embedding that is larger than the base's
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers`", UserWarning)
        model.save_pretrained(folder)
    for file in [*(folder / adapter).glob("adapter_*")]:  # where PEFT writes other than `default`
        file.replace(folder / file.name)
    if adapter != BASE and (folder / adapter).is_dir():
        (folder / adapter).rmdir()
    (folder / CARD).unlink(missing_ok=True)  # of PEFT, with the path of the base
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
