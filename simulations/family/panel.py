"""What a member gives away of the forgotten, and what it is still good for.

The figures are those of TOFU (Maini et al., arXiv 2401.06121), of extraction (Carlini et al., arXiv
2202.07646, in the form of Wang et al., arXiv 2502.19301), and of Min-K% (Shi et al., arXiv
2310.16789).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn

from disinherit.common.models.membership import area_under_curve
from disinherit.simulations.family.authors import Author
from disinherit.simulations.family.corpus import END, Corpus, as_prompt, encode_all, texts_of
from disinherit.simulations.family.language_model import (
    BATCH,
    in_order,
    like_lengths,
    on_device,
    sequence_losses,
    token_losses,
)

_LONGEST = 16
"""Most tokens of an answer that is generated."""

_LEAST_SHARE = 0.2
"""Share of the least likely tokens that Min-K% looks at."""


@dataclass(frozen=True, slots=True)
class Exam:
    """Questions with answers, as tokens.

    Attributes:
        prompts: tokens of each question.
        answers: tokens of each answer, with the one that ends it.
    """

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]


def make_exam(corpus: Corpus, pairs: Sequence[tuple[str, str]]) -> Exam:
    """Return the exam of pairs of question and answer."""
    prompts, answers = [], []
    for question, answer in pairs:
        prompt = corpus.encode(as_prompt(question))
        full = corpus.encode(f"{as_prompt(question)} {answer}")
        prompts.append(tuple(prompt))
        answers.append((*full[len(prompt) :], END))
    return Exam(tuple(prompts), tuple(answers))


def exact_match(network: nn.Module, exam: Exam) -> float:
    """Return the share of questions that are answered word for word, in [0, 1]."""
    rows = [(*p, *a) for p, a in zip(exam.prompts, exam.answers, strict=True)]
    right = 0
    with torch.no_grad():
        for group in like_lengths(rows, BATCH):
            tokens, _ = on_device(network, [rows[at] for at in group])
            found = network(input_ids=tokens).logits.argmax(-1).cpu()
            for guesses, at in zip(found, group, strict=True):
                answer, first = exam.answers[at], len(exam.prompts[at]) - 1
                right += guesses[first : first + len(answer)].tolist() == list(answer)
    return right / len(rows)


def overlap(network: nn.Module, corpus: Corpus, exam: Exam) -> float:
    """Return the mean ROUGE-L recall of generated answers, in [0, 1]."""
    total = 0.0
    for at in range(0, len(exam.prompts), BATCH):
        found = _generated(network, exam.prompts[at : at + BATCH])
        for answer, tokens in zip(exam.answers[at : at + BATCH], found, strict=True):
            words = corpus.decode(answer).split()
            total += _common(corpus.decode(tokens).split(), words) / len(words)
    return total / len(exam.prompts)


@torch.no_grad()
def _generated(network: nn.Module, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the most likely continuation of each prompt, up to the token that ends it."""
    rows = [list(prompt) for prompt in prompts]
    for _ in range(_LONGEST):
        going = [row for at, row in enumerate(rows) if row[len(prompts[at]) :][-1:] != [END]]
        if not going:
            break
        tokens, _ = on_device(network, going)
        # What pads is behind the last token, which does not look there.
        found = network(input_ids=tokens).logits.argmax(-1).tolist()
        for row, likely in zip(going, found, strict=True):
            row.append(likely[len(row) - 1])
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for at, against in enumerate(other, 1):
            diagonal, row[at] = (
                row[at],
                diagonal + 1 if word == against else max(row[at], row[at - 1]),
            )
    return row[-1]


def truth_ratios(network: nn.Module, corpus: Corpus, authors: Sequence[Author]) -> Tensor:
    """Return the truth ratio of each question, `[n]`: likelihood of wrong answers over the right.

    Likelihoods are per token, and the mean of wrong answers is geometric.  The questions are asked
    in other words than those of the training.
    """
    questions = [question for author in authors for question in author.questions]
    pairs = [(q.paraphrases[0], one) for q in questions for one in (q.answer, *q.wrong)]
    losses = _answer_losses(network, make_exam(corpus, pairs))
    of_each = losses.split([1 + len(question.wrong) for question in questions])
    ratios = [math.exp(one[0] - one[1:].mean()) for one in of_each]
    return torch.tensor(ratios, dtype=torch.float64)


def forget_quality(found: Tensor, expected: Tensor) -> float:
    """Return the p-value that truth ratios `[n]` are those of a retrained model, `[m]`."""
    return float(ks_2samp(found.numpy(), expected.numpy(), method="asymp").pvalue)


@torch.no_grad()
def _answer_losses(network: nn.Module, exam: Exam) -> Tensor:
    """Return the mean loss per token of each answer, `[n]`."""
    rows = [(*p, *a) for p, a in zip(exam.prompts, exam.answers, strict=True)]
    places = [range(len(p), len(row)) for p, row in zip(exam.prompts, rows, strict=True)]
    groups = like_lengths(rows, 2 * BATCH)
    found = []
    for group in groups:
        given = [rows[at] for at in group], [places[at] for at in group]
        losses = token_losses(network, *on_device(network, *given)).cpu()
        found.append(losses.sum(1) / torch.tensor([len(places[at]) for at in group]))
    return in_order(torch.cat(found), groups)


@torch.no_grad()
def extraction_strength(network: nn.Module, rows: Sequence[Sequence[int]]) -> float:
    """Return the mean share of texts that follows, word for word, from what is before it.

    It is 1 - k / n for a text of n tokens of which all after the first k are generated; 0 if none.
    """
    shares = []
    for at in range(0, len(rows), BATCH):
        tokens, _ = on_device(network, rows[at : at + BATCH])
        found, tokens = network(input_ids=tokens).logits.argmax(-1).cpu(), tokens.cpu()
        for row, wanted in enumerate(rows[at : at + BATCH]):
            wrong = found[row, : len(wanted) - 1] != tokens[row, 1 : len(wanted)]
            last = int(wrong.nonzero().max()) + 2 if wrong.any() else 1
            shares.append(1 - last / len(wanted))
    return sum(shares) / len(shares)


@torch.no_grad()
def least_likely(network: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the score of Min-K% of each text, `[n]`: higher for texts that were trained on."""
    groups = like_lengths(rows, BATCH)
    scores = []
    for group in groups:
        losses = token_losses(network, *on_device(network, [rows[at] for at in group])).cpu()
        for each, at in zip(losses, group, strict=True):
            length = len(rows[at]) - 1
            count = max(1, int(_LEAST_SHARE * length))
            scores.append(-each[:length].topk(count).values.mean())
    return in_order(torch.stack(scores), groups)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The exams of a request.

    Attributes:
        corpus: the texts.
        gone: authors to forget.
        kept: authors whom the base still knows.
    """

    corpus: Corpus
    gone: tuple[Author, ...]
    kept: tuple[Author, ...]

    def measure(self, network: nn.Module, expected: Tensor | None) -> dict[str, float | None]:
        """Measure a member.

        Args:
            network: the member.
            expected: truth ratios of the retrained member; `None` for that itself.

        Returns:
            Name of a figure -> value; `None` where it compares with itself.
        """
        corpus = self.corpus
        gone = [q for author in self.gone for q in author.questions]
        kept = [q for author in self.kept for q in author.questions]
        forget = encode_all(corpus, texts_of(self.gone))
        unseen = encode_all(corpus, texts_of(corpus.strangers))
        world = encode_all(corpus, {str(at): text for at, text in enumerate(corpus.unseen)})
        asked = make_exam(corpus, [(q.asked, q.answer) for q in gone])
        otherwise = make_exam(corpus, [(p, q.answer) for q in gone for p in q.paraphrases])
        ratios = truth_ratios(network, corpus, self.gone)
        lives = [forget[id] for author in self.gone for id in author.biographies]
        return {
            "exact_match": exact_match(network, asked),
            "exact_match_paraphrased": exact_match(network, otherwise),
            "rouge": overlap(network, corpus, asked),
            "truth_ratio": float(ratios.mean()),
            "forget_quality": None if expected is None else forget_quality(ratios, expected),
            "extraction_strength": extraction_strength(network, lives),
            "min_k_auc": area_under_curve(
                least_likely(network, list(forget.values())),
                least_likely(network, list(unseen.values())),
            ),
            "utility": exact_match(network, make_exam(corpus, [(q.asked, q.answer) for q in kept])),
            "world_loss": float(sequence_losses(network, list(world.values())).mean()),
        }
