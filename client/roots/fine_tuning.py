"""Fine-tuning: training on with retained samples, until what is to be forgotten fades."""

from collections.abc import Callable
from dataclasses import dataclass

from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import Loss, RootTraining, refusal_to_train, train_root

RATES = (3e-3, 1e-3, 3e-4)
"""Learning rates of Adam, from the strongest."""


@dataclass(frozen=True, slots=True)
class RootFineTuning:
    """Steps of Adam on the cross-entropy of retained samples."""

    name: str = "finetune"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse roots without retained data."""
        return refusal_to_train(problem, forgets=False)

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the fine-tuned root; a strength is a learning rate.

        Raises:
            DataError: as `train_root` does.
        """
        return train_root(problem, _losses, RATES, lambda rate: rate)


def _losses(training: RootTraining) -> Callable[[float], Loss]:
    def of(_: float) -> Loss:
        return training.cross_entropy

    return of
