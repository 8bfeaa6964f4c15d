"""Model cards: the YAML at the head of a `README.md`, as the Hugging Face hub reads it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from disinherit.common.errors import DataError
from disinherit.families.evidence import Claim, FamilyFinding, Kind, Relation, Said, Source
from disinherit.families.reading import MOST_TEXT, decode, parse_yaml, read_start, texts

T = TypeVar("T")

CARD = "README.md"
_HEAD = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*---[ \t]*\r?\n((?:.*?\n)??)---[ \t]*(?:\r?\n|$)", re.DOTALL
)
_OPENED = re.compile(rb"(?:\xef\xbb\xbf)?\s*---[ \t]*\r?\n")
_TAG = re.compile(r"base_model:(?:(finetune|adapter|merge|quantized):)?(.*)")
_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/\s?#]+/[^/\s?#]+)[^\s]*")
_KEYS = ("base_model", "library_name", "pipeline_tag", "model-index", "model_name", "new_version")
_LONGEST = 512
"""Characters of the name of a parent."""


def read_card(path: Path) -> Mapping[str, Any]:
    """Return the metadata of a card; nothing if it has none.

    What follows it is not read: it may be long, or no text.

    Raises:
        DataError: if it cannot be read, does not end within `MOST_TEXT` bytes, or is malformed.
    """
    data, whole = read_start(path)
    head = _HEAD.match(data)
    if head is not None:
        return parse_yaml(decode(head[1], path.name), path.name)
    if not whole and _OPENED.match(data):
        raise DataError(
            f"Expected metadata of at most {MOST_TEXT:,} bytes in {path.name}, but got more."
        )
    return {}


def describes_model(card: Mapping[str, Any]) -> bool:
    """Whether metadata is that of a model; data sets and other pages have heads, too."""
    return any(key in card for key in _KEYS)


def claims_of_card(key: str, card: Mapping[str, Any]) -> Said:
    """Return what a card says of the parents of its model.

    Args:
        key: key of the model.
        card: its metadata.
    """
    findings: list[FamilyFinding] = []
    bases = _read(key, _bases, card.get("base_model"), findings)
    tagged = _read(key, _tagged, card.get("tags"), findings)
    stated = card.get("base_model_relation")
    relation = _relation(stated)
    if stated is not None and relation is Relation.UNKNOWN:
        text = f"Expected finetune, adapter, merge or quantized as relation, but got {stated!r}."
        findings.append(FamilyFinding(Kind.RELATION, key, text))
    if new := card.get("new_version"):
        text = f"The card names {new!r} as its new version; that alone is no inheritance."
        findings.append(FamilyFinding(Kind.NEW_VERSION, key, text))
    source = Source.BASES if relation is Relation.UNKNOWN else Source.RELATION
    if relation is Relation.UNKNOWN:
        relation = _guess_of_hub(card, bases)
    claims = [Claim(key, base, source, relation) for base in dict.fromkeys(bases)]
    relations = {name: of for of, name in tagged if of}
    claims += [
        Claim(key, name, Source.TAGS, _relation(relations.get(name)))
        for name in dict.fromkeys(name for _, name in tagged)
    ]
    return claims, findings


def parent_name(text: str) -> str:
    """Return the name of a parent: an address of the hub is that of its repository.

    Raises:
        DataError: if it is too long, or has characters that are not printable.

    Example:
        >>> parent_name("https://huggingface.co/acme/base/tree/main")
        'acme/base'
    """
    name = text.strip().rstrip("/")
    if len(name) > _LONGEST or not name.isprintable():
        raise DataError(
            f"Expected the name of a parent, of at most {_LONGEST} printable characters, but got "
            f"{name[:40]!r} of {len(name):,}."
        )
    found = _ADDRESS.fullmatch(name)
    return found[1] if found else name


def _read(
    key: str, read: Callable[[object], list[T]], value: object, findings: list[FamilyFinding]
) -> list[T]:
    """Return what a field names; nothing, with a finding, if it is malformed."""
    try:
        return read(value)
    except DataError as error:
        findings.append(FamilyFinding(Kind.UNREADABLE, key, str(error)))
        return []


def _tagged(value: object) -> list[tuple[str | None, str]]:
    """Return relation, if any, and name of each base among tags."""
    found = [named for tag in texts(value) if (named := _TAG.fullmatch(tag))]
    return [(named[1], parent_name(named[2])) for named in found if named[2].strip()]


def _bases(value: object) -> list[str]:
    """Return the names of bases; PEFT writes an empty one for a model that has none."""
    listed = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(one, str) for one in listed):
        raise DataError(f"Expected names as base_model, but got {str(value)[:80]!r}.")
    return [parent_name(one) for one in texts(value)]


def _relation(value: object) -> Relation:
    known = (Relation.FINETUNE, Relation.ADAPTER, Relation.MERGE, Relation.QUANTIZED)
    return next((one for one in known if value == one.value), Relation.UNKNOWN)


def _guess_of_hub(card: Mapping[str, Any], bases: list[str]) -> Relation:
    """Return the relation that a card without one has by its tags and library; unknown if none."""
    tags = {tag.lower() for tag in texts(card.get("tags"))}
    if len(bases) > 1 and tags & {"merge", "mergekit"}:
        return Relation.MERGE
    if str(card.get("library_name", "")).lower() == "peft":
        return Relation.ADAPTER
    return Relation.FINETUNE if len(bases) == 1 else Relation.UNKNOWN
