"""What a family of language models has to forget, and what methods need for it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from disinherit.common.curvature.ekfac import Curvature
from disinherit.simulations.family.corpus import Corpus, encode_all, texts_of
from disinherit.simulations.family.language_model import Weights, sequence_losses
from disinherit.simulations.family.members import Family, data_of


@dataclass(frozen=True, slots=True, eq=False)
class FamilyProblem:
    """What a family has to forget.

    Attributes:
        corpus: the texts.
        family: the family as it is.
        replayed: the base trained again without the samples.
        forget: the samples to forget: id -> tokens.
        retain: the other samples of the base.
        strangers: texts of the same kind that no member has seen.
        curvature: returns that of the base, over all of its samples.
        seed: of random choices.
    """

    corpus: Corpus
    family: Family
    replayed: Weights
    forget: Mapping[str, Sequence[int]]
    retain: Mapping[str, Sequence[int]]
    strangers: Sequence[Sequence[int]]
    curvature: Callable[[], Curvature]
    seed: int

    def forgotten_in(self, network: nn.Module) -> bool:
        """Whether the samples to forget are as surprising as unseen ones, on average.

        It is what owners can see, who have no retrained model.
        """
        lost = sequence_losses(network, list(self.forget.values())).mean()
        return bool(lost >= sequence_losses(network, self.strangers).mean())


def make_problem(
    corpus: Corpus,
    family: Family,
    replayed: Weights,
    ids: Collection[str],
    curvature: Callable[[], Curvature],
    seed: int,
) -> FamilyProblem:
    """Return the problem of some samples, with what methods need for it.

    Args:
        corpus: the texts.
        family: the family as it is.
        replayed: its base, trained again without the samples.
        ids: the samples to forget.
        curvature: returns the curvature of the base.
        seed: of the family's training.
    """
    data = data_of(corpus, "base")
    strangers = encode_all(corpus, texts_of(corpus.strangers))
    return FamilyProblem(
        corpus,
        family,
        replayed,
        {id: data[id] for id in data if id in ids},
        {id: data[id] for id in data if id not in ids},
        list(strangers.values()),
        curvature,
        seed,
    )
