"""Rows of language models from the files of benchmarks of unlearning: TOFU and MUSE.

TOFU (Maini et al., arXiv 2401.06121) has questions with answers, MUSE (Shi et al., arXiv
2407.06460) texts, questions with answers (knowmem), and beginnings with their ends (verbmem).
The id of a row is that of its content, so the rows of forget10.json have the ids that they have
in full.json, and a request for the ones is one for the others.  Copies of a row have one id: none
of them stays.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from disinherit.common.errors import DataError
from disinherit.common.limits import shown
from disinherit.common.models.sequences import IGNORED
from disinherit.common.text import load_json, one_line

_QUESTION, _ANSWER = "question", "answer"
_BEGINNING, _END = "prompt", "gt"
_TEXT = "text"
_KINDS = ((_QUESTION, _ANSWER), (_BEGINNING, _END), (_TEXT,))
_PROMPT = "Question: {question}\nAnswer: "


def read_rows(
    source: str | Path | Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    most: int = 512,
    prompt: str | None = None,
) -> list[dict[str, Any]]:
    """Return rows with `id`, `input_ids` and `labels`, as `HuggingFaceOwner.add` takes them.

    Of a question with its answer, and of a beginning with its end, only the tokens of the latter
    count.  A text is cut into pieces, `ID/0`, `ID/1` and so on, of which all tokens count.

    Args:
        source: a file `.json` (a list, or an object on each line), `.jsonl`, or `.txt` (one text);
            or such rows themselves, as `datasets.load_dataset` returns them. They have `question`
            and `answer`, `prompt` and `gt`, or `text`; what else they have is ignored.
        tokenizer: of the model.
        most: most tokens of a row; longer answers and ends are cut off.
        prompt: text with `{question}` in it that is put before an answer; by default what the
            tokenizer has for conversations, else `Question: {question}`, a line break, `Answer: `.

    Raises:
        DataError: if the file cannot be read, a row has none of these, or the question fills it.

    Example:
        >>> forget = [row["id"] for row in read_rows("forget10.json", t)]  # doctest: +SKIP
    """
    if most < 2:
        raise DataError(f"Expected rows of at least 2 tokens, but got {most}.")
    if prompt is not None and "{question}" not in prompt:
        raise DataError(f"Expected a prompt with {{question}} in it, but got {shown(prompt)}.")
    given = _objects(Path(source)) if isinstance(source, str | Path) else source
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(given):
        values = _values(one, place)
        id = hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
        if len(values) == 1:
            rows += _pieces(id, values[0], tokenizer, most)
        else:
            before, after = _parts(values, _QUESTION in one, tokenizer, prompt)
            rows.append(_row(id, before, after, most, place))
    return rows


def _objects(file: Path) -> list[Mapping[str, Any]]:
    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".txt":
            return [{_TEXT: text}]
        if file.suffix not in (".json", ".jsonl"):
            raise ValueError("another kind of file; give its rows")
        if text.lstrip().startswith("["):
            found: list[Mapping[str, Any]] = load_json(text)
            return found
        return [load_json(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected a list of objects, or one on each line, in {file}, or a text in a .txt, but "
            f"got: {error}."
        ) from None


def _values(row: Mapping[str, Any], place: int) -> tuple[str, ...]:
    if isinstance(row, Mapping):
        for kind in _KINDS:
            if all(isinstance(row.get(name), str) and row[name] for name in kind):
                return tuple(row[name] for name in kind)
    got = type(row).__name__
    if isinstance(row, Mapping):
        got = ", ".join(
            f"{name}" if isinstance(value, str) and value else f"{name} ({_what(value)})"
            for name, value in row.items()
        )
    raise DataError(
        "Expected rows with question and answer, prompt and gt, or text, as words, but row "
        f"{place + 1} has {shown(got)}."
    )


def _what(value: object) -> str:
    return "empty" if value == "" else type(value).__name__


def _parts(
    values: tuple[str, ...], is_question: bool, tokenizer: Any, prompt: str | None
) -> tuple[list[int], list[int]]:
    """Return the tokens before what counts, and those of the whole row."""
    first, last = values
    if is_question and prompt is None and getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": first}, {"role": "assistant", "content": last}]
        try:
            before = tokenizer.apply_chat_template(
                turns[:1], tokenize=False, add_generation_prompt=True
            )
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception as error:  # what a template raises about turns that are not as it has them
            raise DataError(
                "Expected a tokenizer that can write a question and its answer as a conversation, "
                f"but its template says: {one_line(str(error), 200)}. Give a prompt."
            ) from error
        return (
            tokenizer(before, add_special_tokens=False)["input_ids"],
            tokenizer(whole, add_special_tokens=False)["input_ids"],
        )
    before = (prompt or _PROMPT).replace("{question}", first) if is_question else f"{first} "
    tokens = tokenizer(before + last)["input_ids"]
    return tokenizer(before.rstrip(" "))["input_ids"], _ended(tokens, tokenizer)


def _ended(tokens: list[int], tokenizer: Any) -> list[int]:
    end = tokenizer.eos_token_id
    return tokens if end is None or tokens[-1:] == [end] else [*tokens, end]


def _row(id: str, before: list[int], whole: list[int], most: int, place: int) -> dict[str, Any]:
    same = 0  # a tokenizer may join the last letters before with the first after them
    while same < min(len(before), len(whole)) and before[same] == whole[same]:
        same += 1
    tokens = whole[:most]
    if same >= len(tokens):
        raise DataError(
            f"Expected room for an answer in {most} tokens, but the question of row {place + 1} "
            f"has {len(before)}. Allow more tokens."
        )
    labels = [IGNORED] * max(same, 1) + tokens[max(same, 1) :]
    return {"id": id, "input_ids": tokens, "labels": labels}


def _pieces(id: str, text: str, tokenizer: Any, most: int) -> list[dict[str, Any]]:
    tokens = tokenizer(text)["input_ids"]
    parts = [tokens[at : at + most] for at in range(0, len(tokens), most)]
    if len(parts) > 1 and len(parts[-1]) < 2:  # a token that nothing is before
        parts.pop()
    return [
        {"id": f"{id}/{at}", "input_ids": part, "labels": list(part)}
        for at, part in enumerate(parts)
    ]
