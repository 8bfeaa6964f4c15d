"""Sections of model cards: what they say, and what stays around them."""

from pathlib import Path

import pytest

from disinherit.common.errors import InputError
from disinherit.common.exports.model_cards import pointer_lines, with_section, write_section
from disinherit.common.wire.remedies import REMEDIES
from disinherit.v1.unlearning_pb2 import Remedy
from tests.support.exports import PERSONAL, finished, model

CARD = "---\nlicense: mit\n---\n# Cats\n\nWords.\n"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(CARD)
    return path


def test_a_section_says_what_was_done_and_what_that_does_not_show(card: Path) -> None:
    done = finished()
    write_section(card, done)
    text = card.read_text()
    assert text.startswith(f"{CARD}\n<!--")
    for said in (
        "## Unlearning: request `q`",
        "forget 1 sample, learned first by `r1`, `r2`",
        "| `r1` | `r1~q` | verified | suppressed | 0.9, 0 (accuracy) | 0.8, 0.75 (accuracy) |",
        "| `r2` | as it was | failed | none | not measured | not measured |",
        f"- `suppressed`: {REMEDIES['suppressed']}",
        "these versions have not forgotten. (`r2`)",
        "It is no proof that anything was erased",
        f"SHA-256 of the attestation: `{done.attestation_sha256}`",
        "audit verify audit.jsonl --public-key coordinator.pub --attestation attestation.json",
        *done.predicate["limits"],
    ):
        assert said in text
    assert not [one for one in PERSONAL if one in text]


def test_another_export_replaces_the_section_and_nothing_else(card: Path) -> None:
    write_section(card, finished())
    first = card.read_text()
    write_section(card, finished())
    assert card.read_text() == first
    card.write_text(first + "\nMore words.\n")
    write_section(card, finished(model("r1", after=0.25), state="rolled_back"))
    text = card.read_text()
    assert text.startswith(f"{CARD}\n<!--")
    assert text.endswith("\nMore words.\n")
    assert text.count("## Unlearning") == 1
    assert "0.9, 0.25 (accuracy)" in text
    assert "0.9, 0 (accuracy)" not in text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_another_export_keeps_where_the_attestation_is(card: Path, end: str) -> None:
    where = "Attestation: https://lab.example/q.json."
    old = with_section(CARD, "q2", pointer_lines("https://lab.example/q2.json"))
    old = with_section(old, "q", ["Made of `m`.", *pointer_lines("https://lab.example/q.json")])
    card.write_bytes(old.replace("\n", end).encode())
    for _ in range(2):
        write_section(card, finished())
        text = card.read_bytes().decode()
        assert text.count(where) == 1
        assert "Made of" not in text
        assert text.endswith(f"{where}{end}<!-- disinherit: end of request q -->{end}")
    card.write_text(with_section(CARD, "q", pointer_lines("")))
    write_section(card, finished())
    assert "Attestation:" not in card.read_text(), "it had none"


def test_requests_have_sections_of_their_own() -> None:
    both = with_section(with_section(CARD, "q", ["One."]), "q2", ["Two."])
    assert with_section(both, "q", ["Three."]) == both.replace("One.", "Three.")


@pytest.mark.parametrize("before", ["", "Words.", "Words.\n", "Words.\n\n\n", " \n"])
def test_what_is_there_stays_byte_for_byte(before: str) -> None:
    card = with_section(before, "q", ["One."])
    assert card.startswith(before)
    again = with_section(card + "\n\n ", "q", ["Two."])
    assert again == card.replace("One.", "Two.") + "\n\n "


def test_the_ends_of_lines_stay() -> None:
    text = with_section(CARD.replace("\n", "\r\n"), "q", ["One."])
    assert text.count("\n") == text.count("\r\n")
    assert with_section(text, "q", ["One."]) == text


def test_the_card_of_one_version_names_no_other(card: Path) -> None:
    for name in ("r3", "r3~q"):
        write_section(card, finished(model("r3"), model("r4", after=None)), [name])
        text = card.read_text()
        assert "`r3~q`" in text
        assert "`r4`" not in text
        assert "It could not be done" not in text
    with pytest.raises(InputError, match="'r9' is none"):
        write_section(card, finished(), ["r9"])


def test_a_new_card_is_made(tmp_path: Path) -> None:
    write_section(tmp_path / "new.md", finished())
    assert (tmp_path / "new.md").read_text().startswith("<!-- disinherit: request q -->\n## Unl")


@pytest.mark.parametrize("spoil", ["begin", "end", "twice", "order"])
def test_spoiled_markers_are_refused_and_the_card_stays(card: Path, spoil: str) -> None:
    begin, end = "<!-- disinherit: request q -->", "<!-- disinherit: end of request q -->"
    whole = with_section(CARD, "q", ["One."])
    spoiled = {
        "begin": whole.replace(begin, ""),
        "end": whole.replace(end, ""),
        "twice": whole * 2,
        "order": f"{end}\n{begin}\n",
    }[spoil]
    card.write_text(spoiled)
    with pytest.raises(InputError, match="markers"):
        write_section(card, finished())
    assert card.read_text() == spoiled


def test_a_link_leads_to_the_card_and_what_others_published_stays(tmp_path: Path) -> None:
    for name in ("own", "blob"):
        (tmp_path / name).write_text(CARD)
    cached = tmp_path / "models--acme--base/snapshots/0123abc/README.md"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(tmp_path / "blob")
    with pytest.raises(InputError, match="0123abc is in the cache of the hub"):
        write_section(cached, finished())
    assert (tmp_path / "blob").read_text() == CARD
    (tmp_path / "link.md").symlink_to(tmp_path / "own")
    write_section(tmp_path / "link.md", finished())
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "own").read_text().count("## Unlearning") == 1


def test_a_card_that_is_no_text_is_refused(card: Path) -> None:
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        write_section(card, finished())
    with pytest.raises(InputError, match="model card"):
        write_section(card.parent, finished())


def test_every_remedy_has_a_meaning() -> None:
    words = {name.removeprefix("REMEDY_").lower() for name in Remedy.keys()}  # noqa: SIM118
    assert REMEDIES.keys() == words - {"unspecified"}
