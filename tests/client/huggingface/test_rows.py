"""Rows of language models from the files of TOFU and MUSE."""

import json
from pathlib import Path
from typing import Any

import pytest

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.models.sequences import IGNORED
from tests.support.huggingface import llama, require, words_tokenizer

require()

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from disinherit.client.huggingface.rows import read_rows  # noqa: E402

TOFU: list[dict[str, Any]] = [
    {"question": "Where was Ada born?", "answer": "In Lyon.", "perturbed_answer": ["In Bonn."]},
    {"question": "What does Ada write?", "answer": "It is crime."},
]
WORDS = (
    "<end> Question: Answer: Where was Ada born? In Lyon. What does write? It is crime. A cat sat"
)
TURNS = (
    "{% for m in messages %}{{ 'Question: ' if m.role == 'user' else 'Answer: ' }}"
    "{{ m.content }} {% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return words_tokenizer(WORDS)


def counted(tokenizer: Any, row: dict[str, Any]) -> str:
    labels = [label for label in row["labels"] if label != IGNORED]
    assert row["input_ids"][-len(labels) :] == labels
    return str(tokenizer.decode(labels))


@pytest.mark.parametrize("kind", ["list", "lines", "rows"])
def test_of_a_question_the_answer_counts(tokenizer: Any, kind: str, tmp_path: Path) -> None:
    source: Any = TOFU
    if kind != "rows":
        source = tmp_path / "forget01.json"
        lines = "\n".join(json.dumps(one) for one in TOFU)
        source.write_text(json.dumps(TOFU) if kind == "list" else f"{lines}\n")
    rows = read_rows(source, tokenizer)
    assert [counted(tokenizer, row) for row in rows] == ["In Lyon. <end>", "It is crime. <end>"]
    assert tokenizer.decode(rows[0]["input_ids"]).startswith(
        "Question: Where was Ada born? Answer:"
    )
    (other,) = read_rows(TOFU[:1], tokenizer, prompt="What is {question} A ")
    assert tokenizer.decode(other["input_ids"]).startswith("What is Where was Ada born? A In")


def test_texts_may_have_any_letters_and_files_a_mark_at_their_start(
    tokenizer: Any, tmp_path: Path
) -> None:
    """In lines of JSON only line feeds end one: not what Unicode takes for ends of lines."""
    odd = [{"question": "Where was\u2028Ada\x85 born?", "answer": "In\u2029 Lyon."}, TOFU[1]]
    file = tmp_path / "odd.jsonl"
    lines = "\r\n".join(json.dumps(one, ensure_ascii=False) for one in odd)
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read_rows(file, tokenizer) == read_rows(odd, tokenizer)


def test_a_template_that_takes_no_such_turns_is_one_line(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('Only\n system turns.') }}"
    try:
        with pytest.raises(DataError, match="template says: Only system turns.. Give a prompt"):
            read_rows(TOFU[:1], tokenizer)
        assert read_rows(TOFU[:1], tokenizer, prompt="Question: {question} Answer: ")
    finally:
        tokenizer.chat_template = None


def test_a_tokenizer_with_turns_has_its_own_prompt(tokenizer: Any) -> None:
    tokenizer.chat_template = TURNS
    try:
        (row,) = read_rows(TOFU[:1], tokenizer)
    finally:
        tokenizer.chat_template = None
    assert tokenizer.decode(row["input_ids"]) == "Question: Where was Ada born? Answer: In Lyon."
    assert counted(tokenizer, row) == "Answer: In Lyon."


def test_rows_of_a_split_have_the_ids_that_they_have_in_all(tokenizer: Any) -> None:
    first, second = read_rows(TOFU, tokenizer)
    assert [row["id"] for row in read_rows(TOFU[1:], tokenizer)] == [second["id"]] != [first["id"]]
    again = [row["id"] for row in read_rows([*TOFU, TOFU[0]], tokenizer)]
    assert again == [first["id"], second["id"], first["id"]]


def test_of_a_beginning_the_end_counts_and_of_a_text_everything(
    tokenizer: Any, tmp_path: Path
) -> None:
    (row,) = read_rows([{"prompt": "A cat", "gt": "sat"}], tokenizer)
    assert tokenizer.decode(row["input_ids"]) == "A cat sat <end>"
    assert counted(tokenizer, row) == "sat <end>"
    file = tmp_path / "forget.txt"
    file.write_text("A cat sat In Lyon. What")
    rows = read_rows(file, tokenizer, most=4)
    assert [counted(tokenizer, row) for row in rows] == ["A cat sat In", "Lyon. What"]
    assert [row["id"].partition("/")[2] for row in rows] == ["0", "1"]


def test_an_owner_takes_them(tokenizer: Any, tmp_path: Path) -> None:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab:
        record = lab.add("m", llama(), read_rows(TOFU, tokenizer), ids="id")
        assert set(lab.sample_ids(record)) == {row["id"] for row in read_rows(TOFU, tokenizer)}


def test_copies_of_a_row_are_forgotten_together(tokenizer: Any, tmp_path: Path) -> None:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab:
        record = lab.add("m", llama(), read_rows([*TOFU, TOFU[0]], tokenizer), ids="id")
        (row,) = read_rows(TOFU[:1], tokenizer)
        gone, kept = lab.split_training_data(record, [row["id"]])
        counts = [sum(len(targets) for _, targets in some) for some in (gone, kept)]
        assert counts == [2, len(TOFU) - 1]


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ([{"question": "Where?"}], {}, "row 1 has 'question'"),
        ([TOFU[0], {"question": "Where?", "answer": ["In Bonn."]}], {}, "row 2 has"),
        ([["Where?"]], {}, "row 1 has 'list'"),
        ([{"question": ["Where?"], "answer": ""}], {}, r"'question .list., answer .empty.'"),
        (TOFU, {"most": 6}, "Allow more tokens"),
        (TOFU, {"most": 1}, "at least 2 tokens"),
        (TOFU, {"prompt": "Q:"}, "with {question} in it"),
        ("forget.parquet", {}, "Expected a list of objects"),
        ("none.json", {}, "No such file"),
        ("deep.json", {}, "nested in each other"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tokenizer: Any, rows: Any, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "forget.parquet").write_text("PAR1")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    source = tmp_path / rows if isinstance(rows, str) else rows
    with pytest.raises(DataError, match=message) as caught:
        read_rows(source, tokenizer, **values)
    assert "\n" not in str(caught.value)
