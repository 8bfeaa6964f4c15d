"""What the head of a model card says."""

from pathlib import Path

import pytest

from disinherit.common.errors import DataError
from disinherit.families.evidence import Kind, Relation, Source
from disinherit.families.model_cards import claims_of_card, describes_model, parent_name, read_card
from disinherit.families.reading import MOST_TEXT

Named = tuple[str, Source, Relation]


def said(text: str, tmp_path: Path) -> tuple[list[Named], list[Kind]]:
    """Parents, sources and relations of a card with this head, and kinds of findings."""
    (tmp_path / "README.md").write_text(
        f"---\n{text}\n---\n# Title\n\n---\nbase_model: body\n---\n"
    )
    claims, findings = claims_of_card("m", read_card(tmp_path / "README.md"))
    named = [(claim.parent, claim.source, claim.relation) for claim in claims]
    return named, [finding.kind for finding in findings]


BASES, RELATION, TAGS = Source.BASES, Source.RELATION, Source.TAGS


@pytest.mark.parametrize(
    ("text", "named", "kinds"),
    [
        ("license: mit", [], []),
        ("base_model: a/b", [("a/b", BASES, Relation.FINETUNE)], []),
        ("base_model: [a/b]", [("a/b", BASES, Relation.FINETUNE)], []),
        ("base_model: [a/b, a/b]", [("a/b", BASES, Relation.UNKNOWN)], []),
        (
            "base_model: [a/b, a/c]",
            [("a/b", BASES, Relation.UNKNOWN), ("a/c", BASES, Relation.UNKNOWN)],
            [],
        ),
        (
            "base_model: [a/b, a/c]\ntags: [mergekit]",
            [("a/b", BASES, Relation.MERGE), ("a/c", BASES, Relation.MERGE)],
            [],
        ),
        ("base_model: a/b\nlibrary_name: peft", [("a/b", BASES, Relation.ADAPTER)], []),
        (
            "base_model: a/b\nbase_model_relation: quantized",
            [("a/b", RELATION, Relation.QUANTIZED)],
            [],
        ),
        (
            "base_model: a/b\nbase_model_relation: quantised",
            [("a/b", BASES, Relation.FINETUNE)],
            [Kind.RELATION],
        ),
        (
            "tags: ['base_model:a/b', 'base_model:adapter:a/b', other]",
            [("a/b", TAGS, Relation.ADAPTER)],
            [],
        ),
        (
            "base_model: https://huggingface.co/a/b/tree/main",
            [("a/b", BASES, Relation.FINETUNE)],
            [],
        ),
        ("new_version: a/c", [], [Kind.NEW_VERSION]),
        ("base_model: 7", [], [Kind.UNREADABLE]),
        ("base_model: [a/b, 7]", [], [Kind.UNREADABLE]),
        ("base_model: {a: b}", [], [Kind.UNREADABLE]),
        (f"base_model: {'x' * 600}", [], [Kind.UNREADABLE]),
        ('base_model: "a\\u202eb"', [], [Kind.UNREADABLE]),
        # As PEFT writes it of a model without a name.
        ("base_model: ''\ntags: ['base_model:adapter:', lora]", [], []),
        (
            "base_model: 7\ntags: ['base_model:a/b']",
            [("a/b", TAGS, Relation.UNKNOWN)],
            [Kind.UNREADABLE],
        ),
        (
            f"base_model: a/b\ntags: ['base_model:{'x' * 600}']",
            [("a/b", BASES, Relation.FINETUNE)],
            [Kind.UNREADABLE],
        ),
        ("base_model: null", [], []),
        ("base_model: []", [], []),
    ],
)
def test_a_card_says_what_the_hub_reads(
    text: str, named: list[Named], kinds: list[Kind], tmp_path: Path
) -> None:
    assert said(text, tmp_path) == (named, kinds)


@pytest.mark.parametrize("text", ["# Title\n", "", "--- \nno end", "----\na: b\n---\n"])
def test_a_page_without_a_head_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path / "README.md") == {}


def test_windows_lines_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf---\r\nbase_model: a/b\r\n---\r\ntext")
    card = read_card(tmp_path / "README.md")
    assert card == {"base_model": "a/b"}
    assert describes_model(card)
    assert not describes_model({"task_categories": ["x"], "license": "mit"})


def test_an_empty_head_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\n---\ntext")
    assert read_card(tmp_path / "README.md") == {}


def test_what_follows_the_head_is_not_read(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    for rest in (b"caf\xe9", b"x" * 2 * MOST_TEXT):
        card.write_bytes(b"---\nbase_model: a/b\n---\n" + rest)
        assert read_card(card) == {"base_model": "a/b"}
    card.write_bytes(b"---\nbase_model: \xe9\n---\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_card(card)
    card.write_bytes(b"---\nbase_model: a/b\n" + b"#" * MOST_TEXT + b"\n---\n")
    with pytest.raises(DataError, match="metadata of at most"):
        read_card(card)


def test_control_characters_are_refused_in_names() -> None:
    with pytest.raises(DataError, match="printable"):
        parent_name("a\x1b[2Jb")


@pytest.mark.parametrize("text", ["---\n---\n# Title\n\nbase_model: b\n---\n", "---\r\n---\r\n"])
def test_an_empty_head_ends_where_it_ends(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path / "README.md") == {}
