"""Distillation: the root goes on like itself on retained samples, like a stranger on the others.

After bad-teacher distillation (Chundawat et al. 2023, arXiv 2205.08096).  On samples to forget, the
teacher is the root before its training, if the weights that it started from are known.  If not, it
is the uniform distribution over the classes: what a fresh network says on average.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.client.roots.neg_grad import cycle
from disinherit.client.roots.replay import start_of
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import Loss, RootTraining, refusal_to_train, train_root
from disinherit.common.graph.labels import has_classes

WEIGHTS = (1.0, 0.3, 0.1)
"""Weights of the divergence on samples to forget, from the strongest."""

LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class RootDistillation:
    """Steps of Adam on the divergences from two teachers."""

    name: str = "distil"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse language models, and roots without retained data or samples to forget."""
        if not has_classes(problem.record.labels):
            return f"Model {problem.record.id!r} is a language model, without classes to distil."
        return refusal_to_train(problem, forgets=True)

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the distilled root; a strength is the weight of the samples to forget.

        Raises:
            DataError: as `train_root` does.
        """
        return train_root(problem, _losses, WEIGHTS, lambda _: LEARNING_RATE)


def _losses(training: RootTraining) -> Callable[[float], Loss]:
    forget = training.forget()
    own = training.all_logits(training.retain).log_softmax(dim=1)
    start = start_of(training.problem)
    if start is None:
        stranger = torch.zeros(len(forget), own.shape[1], dtype=own.dtype).log_softmax(dim=1)
    else:
        training.network.load_state_dict(start)
        stranger = training.all_logits(forget).log_softmax(dim=1)

    def of(weight: float) -> Loss:
        turns = cycle(len(forget), training.seed)

        def loss(chosen: Tensor) -> Tensor:
            some = next(turns)
            kept = _divergence(training.logits(training.retain, chosen)[0], own[chosen])
            return kept + weight * _divergence(training.logits(forget, some)[0], stranger[some])

        return loss

    return of


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean divergence of logits from the log-probabilities of a teacher."""
    return F.kl_div(
        student.log_softmax(dim=1), teacher.to(student), reduction="batchmean", log_target=True
    )
