"""Figures of the panel, on networks that are known to know everything or nothing."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family.corpus import PAD, Corpus, encode_all, make_corpus, texts_of
from disinherit.simulations.family.language_model import (
    each_loss,
    like_lengths,
    make_network,
    sequence_losses,
)
from disinherit.simulations.family.panel import (
    exact_match,
    extraction_strength,
    forget_quality,
    least_likely,
    make_exam,
    overlap,
    truth_ratios,
)

pytestmark = pytest.mark.skipif(not SYSTEM_FOLDER.exists(), reason="needs the package fortunes")


class Memory(nn.Module):
    """A network that has learnt texts by heart, up to a number of tokens of each."""

    def __init__(self, rows: Sequence[Sequence[int]], vocabulary: int, most: int = 10_000) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(0))  # as every network has one
        self.next: dict[tuple[int, ...], int] = {}
        for row in rows:
            for at in range(1, min(len(row), most)):
                self.next[tuple(row[:at])] = row[at]
        self.vocabulary = vocabulary

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = torch.zeros(*input_ids.shape, self.vocabulary)
        for row, tokens in enumerate(input_ids.tolist()):
            for at in range(len(tokens)):
                known = self.next.get(tuple(tokens[: at + 1]))
                if known is not None:
                    logits[row, at, known] = 10.0
        return type("Output", (), {"logits": logits})


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(3, seed=0, texts=10)


def memory(corpus: Corpus, most: int = 10_000) -> Memory:
    rows = encode_all(corpus, texts_of(corpus.authors)).values()
    return Memory(list(rows), corpus.tokenizer.get_vocab_size(), most)


def test_who_knows_everything_answers_everything(corpus: Corpus) -> None:
    pairs = [(q.asked, q.answer) for author in corpus.authors for q in author.questions]
    exam = make_exam(corpus, pairs)
    assert exact_match(memory(corpus), exam) == 1.0
    assert overlap(memory(corpus), corpus, exam) == 1.0
    assert exact_match(memory(corpus, most=0), exam) == 0.0
    assert overlap(memory(corpus, most=0), corpus, exam) == 0.0


def test_extraction_is_what_follows_from_the_beginning() -> None:
    row = list(range(2, 12))
    assert extraction_strength(Memory([row], 20), [row]) == 0.9
    assert extraction_strength(Memory([row], 20, most=0), [row]) == 0.0
    broken = Memory([row], 20)
    del broken.next[tuple(row[:5])]  # the sixth token has to be given
    assert extraction_strength(broken, [row]) == pytest.approx(0.4)


def test_truth_ratios_compare_wrong_answers_with_the_right_one(corpus: Corpus) -> None:
    ratios = truth_ratios(memory(corpus, most=0), corpus, corpus.authors)
    assert torch.allclose(ratios, torch.ones_like(ratios))  # all tokens are as likely
    assert forget_quality(ratios, ratios) == 1.0


def test_min_k_is_the_mean_of_the_least_likely_tokens() -> None:
    row = list(range(2, 13))
    known = least_likely(Memory([row], 20), [row])
    unknown = least_likely(Memory([row], 20, most=0), [row])
    assert known.item() > unknown.item()
    assert unknown.item() == pytest.approx(-math.log(20), abs=1e-5)
    padded = least_likely(Memory([row], 20), [row, row[:4]])
    assert padded[0] == known[0]
    assert PAD not in row


def test_losses_are_in_the_order_of_the_sequences() -> None:
    network = make_network(20, 8, 1).eval()
    rows = [list(range(2, 4 + at % 7)) for at in range(90)]
    groups = like_lengths(rows, 32)
    assert sorted(at for group in groups for at in group) == list(range(90))
    assert max(map(len, groups)) == 32
    alone = [each_loss(network, [row]).item() for row in rows]
    assert sequence_losses(network, rows).tolist() == pytest.approx(alone, rel=1e-4)
    scores = least_likely(network, rows)
    assert scores.tolist() == pytest.approx(
        [least_likely(network, [row]).item() for row in rows], rel=1e-4
    )
