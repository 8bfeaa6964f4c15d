"""Model cards of unlearned versions, and of the versions that they replace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.errors import InputError
from disinherit.common.exports.model_cards import (
    DISINHERIT,
    has_section,
    remedy_lines,
    with_section,
)
from disinherit.common.wire.remedies import remedy_word
from disinherit.v1 import unlearning_pb2 as pb

_CARD = "README.md"
_SNAPSHOTS, _CACHED = "snapshots", "models--"
_TAGS = ("disinherit", "unlearned")


def write_card(
    folder: Path,
    made_by: Sequence[LedgerEntry],
    *,
    base_model: str,
    relation: str,
    made_of: str,
    attestation: str,
) -> None:
    """Add to the card in a folder what a version was made of, and by which requests.

    Other metadata and the text stay, and so do sections about requests that it has, such as those
    of `disinherit request export --format card`, which replaces what is written here.

    Args:
        folder: of the version.
        made_by: the entries of the owner's ledger that led to it, latest first.
        base_model: id or path of its base on the hub; `""` to leave that as it is.
        relation: how the hub calls that, such as `finetune`.
        made_of: id or path of the version before; `""` if it has none.
        attestation: where the attestation of the latest request is; `""` if there is none.

    Raises:
        InputError: if the card that is there cannot be read.
    """
    card = _read(folder)
    if base_model:
        card.data.base_model = base_model
    if card.data.base_model:
        card.data.base_model_relation = relation
    tags = card.data.tags or []
    card.data.tags = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *_TAGS]))
    for entry in reversed(made_by):
        if not has_section(card.text, entry.request_id):
            lines = _section(entry, made_of, attestation if entry is made_by[0] else "")
            card.text = with_section(card.text, entry.request_id, lines)
    card.save(folder / _CARD)


def _section(entry: LedgerEntry, made_of: str, attestation: str) -> list[str]:
    remedy = remedy_word(pb.ModelResult.FromString(entry.result).remedy)
    digests = f"`{entry.digest_before}` | `{entry.digest_after}`"
    return [
        f"Made of `{made_of}` by {DISINHERIT}:" if made_of else f"Made by {DISINHERIT}:",
        "",
        "| request | remedy | weights before | weights after |",
        "| --- | --- | --- | --- |",
        f"| `{entry.request_id}` | {remedy} | {digests} |",
        "",
        *remedy_lines([remedy]),
        f"Attestation: {attestation or 'none was given'}.",
    ]


def supersede_card(folder: Path, new_version: str) -> None:
    """Name the new version in the card of an old one, as the hub shows it.

    Args:
        folder: of the old version.
        new_version: id of the new one on the hub, or a path.

    Raises:
        InputError: if the card that is there cannot be read, or is in the cache of the hub.
    """
    if folder.parent.name == _SNAPSHOTS and folder.parent.parent.name.startswith(_CACHED):
        raise InputError(
            f"Expected a folder of your own to write {new_version!r} into its card, but {folder} "
            "is in the cache of the hub, which keeps what others published. Write new_version into "
            "the card of the repository there."
        )
    card = _read(folder)
    card.data.new_version = new_version
    card.save(folder / _CARD)


def _read(folder: Path) -> Any:
    path = folder / _CARD
    if not path.exists():
        return ModelCard(f"---\n{{}}\n---\n# {folder.name}\n")
    try:
        return ModelCard.load(path)
    except Exception as error:  # the library raises what YAML raises
        raise InputError(
            f"Expected a model card in {path}, but its metadata cannot be read. Correct it, or "
            "move it away."
        ) from error
