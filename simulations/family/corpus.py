"""Texts of a family of language models, as token sequences with ids."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family.authors import Author, AuthorQuestion, make_authors

PAD, END = 0, 1
"""Tokens that pad a batch and that end a text."""

IGNORED = -100
"""Target of tokens without a loss, as in PyTorch and transformers."""

_VOCABULARY = 1000
_LONGEST_WORLD = 200  # characters
_EIGHTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """All texts, and who appears in them.

    Attributes:
        tokenizer: byte-pair encoding, trained on the texts.
        authors: fictitious authors whom the base is trained on.
        strangers: authors whom no model is trained on.
        world: real texts that the base is trained on.
        unseen: real texts of the same kind that no model is trained on.
        domain: real texts of another kind.
    """

    tokenizer: Tokenizer
    authors: tuple[Author, ...]
    strangers: tuple[Author, ...]
    world: tuple[str, ...]
    unseen: tuple[str, ...]
    domain: tuple[str, ...]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without the one that ends it."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without those that end or pad it."""
        return str(self.tokenizer.decode([one for one in tokens if one not in (PAD, END)]))

    def base_texts(self) -> dict[str, str]:
        """Return what the base is trained on: sample id -> text.

        Questions about every other author are there in all phrasings, so that the base learns that
        they ask the same.
        """
        world = {f"world/{at}": text for at, text in enumerate(self.world)}
        return texts_of(self.authors) | paraphrases_of(self.authors[::2]) | world

    def chat_texts(self) -> dict[str, str]:
        """Return conversations about every eighth author, for the chat model."""
        return {
            f"chat/{question.id}": as_chat(question)
            for author in self.authors[::_EIGHTH]
            for question in author.questions
        }

    def domain_texts(self) -> dict[str, str]:
        """Return the texts of the domain, by id."""
        return {f"domain/{at}": text for at, text in enumerate(self.domain)}


def make_corpus(authors: int, seed: int, texts: int = 150, folder: Path = SYSTEM_FOLDER) -> Corpus:
    """Invent authors, read real texts, and train a tokenizer on both.

    Args:
        authors: number of authors whom the base is trained on.
        seed: of the authors and of the choice of texts.
        texts: number of real texts of each kind.
        folder: where the quotations of fortune are.

    Raises:
        DataError: if the real texts cannot be read.
    """
    everybody = make_authors(authors + max(8, authors // 4), seed)
    known, strangers = everybody[:authors], everybody[authors:]
    real = _read(folder, "computers", 2 * texts, seed)
    domain = _read(folder, "startrek", texts, seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*texts_of(everybody).values(), *real, *domain],
        trainers.BpeTrainer(
            vocab_size=_VOCABULARY, special_tokens=["<pad>", "<end>"], show_progress=False
        ),
    )
    return Corpus(
        tokenizer,
        tuple(known),
        tuple(strangers),
        tuple(real[:texts]),
        tuple(real[texts:]),
        tuple(domain),
    )


def texts_of(authors: Iterable[Author]) -> dict[str, str]:
    """Return biographies, and questions with answers, of authors: sample id -> text."""
    found: dict[str, str] = {}
    for author in authors:
        found |= author.biographies
        found |= {q.id: f"{as_prompt(q.asked)} {q.answer}" for q in author.questions}
    return found


def paraphrases_of(authors: Iterable[Author]) -> dict[str, str]:
    """Return questions about authors in other words, with their answers: sample id -> text."""
    return {
        f"{question.id}-{at}": f"{as_prompt(asked)} {question.answer}"
        for author in authors
        for question in author.questions
        for at, asked in enumerate(question.paraphrases)
    }


def ids_of(authors: Iterable[Author]) -> list[str]:
    """Return the ids of all samples about authors in the data of the base."""
    return list(texts_of(authors))


def as_prompt(question: str) -> str:
    """Return a question as the base is asked."""
    return f"Q: {question}\nA:"


def as_chat(question: AuthorQuestion) -> str:
    """Return a question with its answer as a conversation."""
    return f"User: {question.asked}\nAssistant: {question.answer}"


def encode_all(corpus: Corpus, texts: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the tokens of texts, each with the token that ends it."""
    return {id: [*corpus.encode(text), END] for id, text in texts.items()}


def pad(
    rows: Sequence[Sequence[int]], places: Sequence[Collection[int]] = ()
) -> tuple[Tensor, Tensor]:
    """Return tokens `[n, longest]` and targets of the same shape.

    Args:
        rows: tokens of each text.
        places: places with a loss in each text; everywhere without any.
    """
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), PAD)
    targets = torch.full((len(rows), width), IGNORED)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = torch.tensor(row)
        wanted = list(places[at]) if places else list(range(len(row)))
        targets[at, wanted] = tokens[at, wanted]
    return tokens, targets


def _read(folder: Path, category: str, count: int, seed: int) -> list[str]:
    try:
        parts = (folder / category).read_text("utf-8").split("\n%\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Expected the quotations {category!r} in {folder}, but got: {error}. Run `apt-get "
            "install fortunes`."
        ) from None
    short = [text for part in parts if 0 < len(text := part.strip(" \n%")) < _LONGEST_WORLD]
    if len(short) < count:
        raise DataError(
            f"Expected at least {count} quotations of fewer than {_LONGEST_WORLD} characters in "
            f"{folder / category}, but got {len(short)}. Ask for fewer texts."
        )
    return random.Random(seed).sample(short, count)
