"""Model cards of unlearned versions, and of the versions that they replace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard

from disinherit.client.huggingface.hub_folders import is_id
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.errors import InputError
from disinherit.common.exports.model_cards import (
    DISINHERIT,
    check_own,
    has_section,
    pointer_lines,
    remedy_lines,
    with_pointer,
    with_section,
)
from disinherit.common.limits import shown
from disinherit.common.text import one_line
from disinherit.common.wire.remedies import remedy_word
from disinherit.v1 import unlearning_pb2 as pb

CARD = "README.md"
_TAGS = ("disinherit", "unlearned")
_OF_BEFORE = ("new_version", "model-index")
"""What a card says of the very weights that are replaced: their successor, and their figures."""


def card_of(
    source: Path | None,
    title: str,
    made_by: Sequence[LedgerEntry],
    *,
    base_model: str | None,
    relation: str,
    attestation: str,
) -> str:
    """Return the card of a version: that of the one before, with what it was made of, by what.

    Its figures and its successor are left out, and so are bases by a path: they mean nothing
    elsewhere, and tell who published it.  All else stays, and so do sections about requests that it
    has, such as those of `disinherit request export --as card`.

    Args:
        source: folder of the version before; `None` if it has none.
        title: of the card if there is none.
        made_by: the entries of the owner's ledger that led to it, latest first; without any the
            card is as it was, and `""` if there is none.
        base_model: id of its base on the hub; `""` to leave that as it is, `None` to name none.
        relation: how the hub calls that, such as `finetune`.
        attestation: where the attestation of the latest request is; `""` if there is none.

    Raises:
        InputError: if the card that is there cannot be read, its sections are spoiled, or the
            attestation is not a line.
    """
    _check_line(attestation, "where the attestation is")
    path = None if source is None else source / CARD
    if not made_by:
        return "" if path is None or not path.exists() else str(_read(path, title))
    card = _read(path, title)
    for name in _OF_BEFORE:
        card.data.pop(name, None)
    said = card.data.pop("base_model_relation", None)
    had = [one for one in _listed(card.data.pop("base_model", None)) if is_id(one)]
    if bases := had if base_model == "" else _listed(base_model):
        card.data["base_model"] = bases[0] if len(bases) == 1 else bases
        given = base_model or relation != "finetune"  # what else the card says of its bases stays
        card.data["base_model_relation"] = relation if given else said
    if relation == "adapter" and not card.data.get("library_name"):
        card.data["library_name"] = "peft"
    tags = [tag for tag in _listed(card.data.get("tags")) if not tag.startswith("base_model:")]
    card.data["tags"] = list(dict.fromkeys([*tags, *_TAGS]))
    try:
        for entry in reversed(made_by):
            where = attestation if entry is made_by[0] else ""
            if not has_section(card.text, entry.request_id):
                card.text = with_section(card.text, entry.request_id, _section(entry, where))
            elif where:
                card.text = with_pointer(card.text, entry.request_id, where)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return str(card)


def _check_line(text: str, what: str) -> None:
    """Check that what goes into a card is a line of text: more would end its part of it.

    Raises:
        InputError: if it is not.
    """
    if one_line(text) != text or "<!--" in text:
        raise InputError(f"Expected one line of text for {what}, but got {shown(text)}.")


def _listed(value: Any) -> list[str]:
    """Return the texts of a field that has one, or a list."""
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]


def _section(entry: LedgerEntry, attestation: str) -> list[str]:
    remedy = remedy_word(pb.ModelResult.FromString(entry.result).remedy)
    digests = f"`{entry.digest_before}` | `{entry.digest_after}`"
    return [
        f"Made of `{entry.model_id}` by {DISINHERIT}:",
        "",
        "| request | remedy | weights before | weights after |",
        "| --- | --- | --- | --- |",
        f"| `{entry.request_id}` | {remedy} | {digests} |",
        "",
        *remedy_lines([remedy]),
        *pointer_lines(attestation),
    ]


def supersede_card(folder: Path, new_version: str) -> None:
    """Name the new version in the card of an old one, as the hub shows it.

    Args:
        folder: of the old version.
        new_version: id of the new one on the hub, or a path.

    Raises:
        InputError: if the card that is there cannot be read, or is in the cache of the hub.
    """
    _check_line(new_version, "the id of the new version")
    check_own(folder, f"new_version: {new_version}")
    card = _read(folder / CARD, folder.name)
    card.data["new_version"] = new_version
    card.save(folder / CARD)


def _read(path: Path | None, title: str) -> Any:
    if path is None or not path.exists():
        return RepoCard(f"---\n{{}}\n---\n# {title}\n")
    try:
        return RepoCard.load(path)  # a ModelCard refuses figures that are not as it has them
    except Exception as error:  # the library raises what YAML raises
        raise InputError(
            f"Expected a model card in {path}, but its metadata cannot be read. Correct it, or "
            "move it away."
        ) from error
