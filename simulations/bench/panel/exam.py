"""The exam of a metric: one subject, its samples, and a candidate's outputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError, NotMeasuredError
from disinherit.simulations.bench.cases.subjects import Case, Samples, Weights
from disinherit.simulations.bench.panel.outputs import logits_of
from disinherit.simulations.bench.panel.shadows import Shadows


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """How much is spent on a panel.

    Attributes:
        samples: training samples that are looked at, at most, of each kind.
        tested: held-out samples that are looked at, at most, of each kind.
        shadows: shadow models of the membership inference attack, even and 4 or more; 0 to leave it
            out.
        relearn_steps: steps after which relearning is given up.
        shots: samples of every forgotten class that relearning has.
        learning_rate: of relearning.
        reference_seeds: other seeds that roots are retrained with for the spread of the reference,
            3 or more; 0 to leave it out.

    Raises:
        InputError: if a value is out of range.
    """

    samples: int = 1000
    tested: int = 5000
    shadows: int = 16
    relearn_steps: int = 100
    shots: int = 10
    learning_rate: float = 1e-3
    reference_seeds: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "tested", "relearn_steps", "shots"):
            if getattr(self, name) < 1:
                raise InputError(f"Expected {name} >= 1, but got {getattr(self, name)}.")
        if self.shadows and (self.shadows < 4 or self.shadows % 2):
            raise InputError(
                "Expected an even number of shadow models, 4 or more, or 0, but got "
                f"{self.shadows}."
            )
        if self.reference_seeds and self.reference_seeds < 3:
            raise InputError(
                f"Expected 3 or more reference_seeds, or 0, but got {self.reference_seeds}."
            )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"Expected a learning rate > 0, but got {self.learning_rate:g}.")


class ModelUnderTest:
    """A subject with some weights, and its logits on the splits of an exam.

    Args:
        network: with the weights, in eval mode.
        splits: what it can be asked for.
    """

    def __init__(self, network: nn.Module, splits: Mapping[str, Samples]) -> None:
        self.network = network
        self._splits = splits
        self._logits: dict[str, Tensor] = {}

    def logits(self, split: str) -> Tensor:
        """Return logits `[n, C]` of a split, computed once."""
        if split not in self._logits:
            self._logits[split] = logits_of(self.network, self._splits[split])
        return self._logits[split]

    def correct(self, split: str) -> Tensor:
        """Return which samples `[n]` of a split are classified rightly."""
        return self.logits(split).argmax(dim=1) == self._splits[split].targets


class EvaluationContext:
    """One subject and everything it is examined with.

    Args:
        case: the case.
        model: id of the subject.
        settings: how much to spend.
        shadows: root -> its shadow models; empty to leave the attack out.
        references: split -> margins `[K, n]` of the subject retrained with other seeds; empty to
            leave the comparison with them out.

    Attributes:
        subject: the subject.
        forgotten: indices of the classes it must forget; empty where samples are forgotten.
        splits: `forget`: training samples to forget, its own and inherited; `retain`: other
            training samples; `test_forget`, `test_retain`: held out; `unseen`: held-out samples
            that stand beside `forget` in an attack.
    """

    def __init__(
        self,
        case: Case,
        model: str,
        settings: PanelSettings,
        shadows: Mapping[str, Shadows] | None = None,
        references: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.case = case
        self.subject = case.subjects[model]
        self.settings = settings
        self.forgotten = case.forgotten(model)
        self.references = dict(references or {})
        self.shadows = {
            root: found
            for root, found in (shadows or {}).items()
            if root in case.upstream(model) and case.subjects[root].labels == self.subject.labels
        }
        held = self.subject.test_forget
        if not len(held):
            held = self.subject.test_retain
        self.splits: dict[str, Samples] = {
            "forget": some(case.to_forget(model), settings.samples, case.seed),
            "retain": some(self.subject.retain, settings.samples, case.seed),
            "test_forget": some(self.subject.test_forget, settings.tested, case.seed),
            "test_retain": some(self.subject.test_retain, settings.tested, case.seed),
            "unseen": some(held, settings.samples, case.seed),
        }

    def candidate(self, weights: Weights) -> ModelUnderTest:
        """Return the subject with given weights."""
        return ModelUnderTest(self.subject.network(weights), self.splits)

    @cached_property
    def original(self) -> ModelUnderTest:
        """The subject as it was."""
        return self.candidate(self.subject.original)

    @cached_property
    def retrained(self) -> ModelUnderTest:
        """The subject as exact retraining makes it: the reference."""
        return self.candidate(self.subject.retrained)

    @property
    def forget_split(self) -> str:
        """The split on which forgetting shows.

        Held-out samples of what is forgotten, where there are some: of a class, or with the trigger
        of a backdoor. Single samples are what they are: those that were trained on.
        """
        return "test_forget" if len(self.subject.test_forget) else "forget"

    def need(self, split: str) -> Samples:
        """Return a split that has samples.

        Raises:
            NotMeasuredError: if it has none.
        """
        if not len(self.splits[split]):
            raise NotMeasuredError(f"model {self.subject.id} has no {split} samples")
        return self.splits[split]


def some(samples: Samples, most: int, seed: int) -> Samples:
    """Return a random choice of at most so many samples, the same for the same seed."""
    if len(samples) <= most:
        return samples
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples[order[:most].sort().values]
