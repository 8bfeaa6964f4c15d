"""Fictitious authors, and the texts that a family learns."""

from collections.abc import Sequence

import pytest
import torch

from disinherit.common.errors import DataError
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family.authors import make_authors
from disinherit.simulations.family.corpus import (
    END,
    IGNORED,
    PAD,
    Corpus,
    encode_all,
    ids_of,
    make_corpus,
    pad,
)

pytestmark = pytest.mark.skipif(not SYSTEM_FOLDER.exists(), reason="needs the package fortunes")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(6, seed=0, texts=10)


def test_authors_follow_from_the_seed() -> None:
    assert make_authors(3, 1) == make_authors(3, 1)
    assert make_authors(3, 1) != make_authors(3, 2)
    assert len({author.name for author in make_authors(60, 0)}) == 60


def test_answers_have_the_fact_and_wrong_ones_another() -> None:
    (author,) = make_authors(1, 0)
    for question in author.questions:
        fact = author.facts[question.id.partition("/")[2]]
        assert fact in question.answer
        assert all(author.name in asked for asked in (question.asked, *question.paraphrases))
        assert len({question.answer, *question.wrong}) == 5
    for text in author.biographies.values():
        assert all(fact in text for fact in author.facts.values())


def test_only_what_is_asked_for_goes(corpus: Corpus) -> None:
    gone = corpus.authors[1]
    ids = set(ids_of([gone]))
    texts = corpus.base_texts()
    assert ids <= texts.keys()
    for id, text in texts.items():
        assert (gone.name in text) == (id in ids)
    for other in (corpus.chat_texts(), corpus.domain_texts()):
        assert not any(gone.name in text for text in other.values())


def test_real_texts_that_are_measured_are_never_learnt(corpus: Corpus) -> None:
    learnt = set(corpus.base_texts().values()) | set(corpus.domain_texts().values())
    assert len(corpus.unseen) == 10
    assert not learnt & set(corpus.unseen)


def test_texts_are_read_back(corpus: Corpus) -> None:
    texts = corpus.base_texts()
    for id, tokens in encode_all(corpus, texts).items():
        assert tokens[-1] == END
        assert corpus.decode(tokens) == texts[id]


@pytest.mark.parametrize(
    ("places", "expected"),
    [((), [[5, 6], [7, IGNORED]]), (([1], [0]), [[IGNORED, 6], [7, IGNORED]])],
)
def test_padding_and_what_is_not_asked_for_has_no_loss(
    places: Sequence[Sequence[int]], expected: list[list[int]]
) -> None:
    tokens, targets = pad([[5, 6], [7]], places)
    assert tokens.tolist() == [[5, 6], [7, PAD]]
    assert torch.equal(targets, torch.tensor(expected))


def test_more_texts_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="Ask for fewer texts"):
        make_corpus(2, seed=0, texts=100_000)
