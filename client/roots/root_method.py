"""The interface of root methods, their entry points, and the choice among them.

A root method computes the weights of a root after unlearning, by whatever means.  Descendants
inherit the difference, so they need not know which method it was.  Methods are entry points of the
group `disinherit.root_methods`, so another package adds its own by naming it there::

    [project.entry-points."disinherit.root_methods"]
    mine = "my_package.unlearning:MyRootMethod"
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from torch import Tensor

from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.privacy.remaining import tuning_data
from disinherit.client.roots.unseen import MOST_RISE, Seen, look
from disinherit.common.entry_points import installed
from disinherit.common.errors import (
    DataError,
    DisinheritError,
    InputError,
    RequestError,
    StoreError,
)
from disinherit.common.graph.labels import has_classes
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO, REPLAY, Method

_log = logging.getLogger(__name__)

GROUP = "disinherit.root_methods"

AUTO_ORDER = ("replay", "ekfac", "neggrad+", "finetune", "distil", "dampening")
"""Methods in the order in which `auto` tries them; those that are not installed are skipped.

Measured at roots on Fashion-MNIST with 150 samples to forget, relabelled ones or ordinary ones
(docs/method.md, section 11).  A step with registered curvature brings the attack on losses closest
to that of a replay.  Fine-tuning forgets little; distillation towards a uniform teacher makes
ordinary samples stand out as never seen; dampening costs the most accuracy.  What is best for one
root its owner sees on its tuning split, so the order decides only among those that look forgotten.
"""

_COMPARES = "dampening"
"""The method that compares the samples to forget with those to keep: of little use without any."""


@dataclass(frozen=True, slots=True, eq=False)
class RootProblem:
    """A root and what it has to forget.

    Attributes:
        owner: the owner of the root.
        record: its version.
        weights: its weights; left as they are.
        names: parameters that may change.
        forget: the samples to forget; `None` if they are gone.
        retain: its other direct training data, without what earlier requests cleared; `None` if
            there is none, or it is gone.
        samples: ids of the samples to forget; `None` for all of its direct training data.
        method: how to unlearn.
        request_id: seed of random choices.
    """

    owner: Owner
    record: ModelRecord
    weights: Mapping[str, Tensor]
    names: Sequence[str]
    forget: Batches | None
    retain: Batches | None
    samples: Sequence[str] | None
    method: Method
    request_id: str


@dataclass(frozen=True, slots=True, eq=False)
class UnlearnedRoot:
    """A root after unlearning.

    Attributes:
        weights: its complete new weights on the CPU, with unchanged dtypes.
        exact: whether they are those of its training without the samples to forget.
        steps: training steps that were taken.
        note: how it was done, for people to read.
        replaces: earlier requests whose changes of the root are no longer in them.
    """

    weights: dict[str, Tensor]
    exact: bool = False
    steps: int = 0
    note: str = ""
    replaces: tuple[str, ...] = ()


class RootMethod(Protocol):
    """A way to unlearn a root."""

    @property
    def name(self) -> str:
        """The name of its entry point."""
        ...

    def refusal(self, problem: RootProblem) -> str:
        """Return why it cannot be done, as one sentence; `""` if it can.

        It is asked before anything is computed, and must be cheap.
        """
        ...

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the root after unlearning; nothing is stored.

        Raises:
            DisinheritError: if it fails.
        """
        ...


def unlearn_root(problem: RootProblem, name: str = AUTO) -> tuple[str, UnlearnedRoot]:
    """Unlearn a root by a method, and return the method's name and what it made.

    Args:
        problem: the root.
        name: of the method, or `auto` for the first in the order of `AUTO_ORDER` after which the
            samples look unseen to the attack on losses on the owner's tuning split, and that keeps
            what is to be kept; if none does, for the one nearest to that.  A replay is not asked.
            Without a tuning split nothing can be seen, and the first that can be done is taken.
            One that fails is followed by the next.  Methods of other packages are taken by name
            only, and so is dampening where nothing is to be kept: it would change nothing, or
            destroy the root.

    Raises:
        RequestError: if no method of this name is installed.
        InputError: if it cannot be loaded.
        DataError: if it cannot be done here, or none can.
        StoreError: if the owner's store cannot be used; no other method is taken then.
    """
    installed = _installed()
    if name != AUTO and name not in installed:
        raise RequestError(
            f"Expected a root method among {', '.join(installed)}, or auto, but got {name!r}. "
            f"Install the package that has it as an entry point of {GROUP!r} at "
            f"{problem.owner.store.owner}."
        )
    reasons = []
    attempts = _Attempts(problem)
    for one in AUTO_ORDER if name == AUTO else (name,):
        if one not in installed:
            continue
        method = _loaded(one)
        if name == AUTO and one == _COMPARES and problem.samples is None:
            reason = "It has nothing to compare with."
        else:
            reason = method.refusal(problem)
        if not reason:
            try:
                made = method.unlearn(problem)
                if name != AUTO or one == REPLAY:
                    return one, made
                if attempts.settled_by(one, made):
                    break
                continue
            except StoreError:  # such as a full disk: it passes, and a worse method would stay
                raise
            except DisinheritError as error:
                if name != AUTO:
                    raise
                reason = str(error)
                _log.warning("root method %r failed: %s", one, reason)
        reasons.append(f"{one}: {reason}")
    if attempts.best is not None:
        return attempts.best
    what = "a root method" if name == AUTO else f"root method {name!r}"
    raise DataError(
        f"Expected {what} that can be done for root {problem.record.id!r}, but none can. "
        + " ".join(reasons)
    )


class _Attempts:
    """Attempts of `auto`, and the best of them by what the owner of the root sees.

    At most two of them are held.

    Args:
        problem: the root.

    Attributes:
        best: name and outcome of the best one; `None` without any.
    """

    def __init__(self, problem: RootProblem) -> None:
        self._problem = problem
        self._odd = 0.0
        self._before: Seen | None = None
        self._best_seen: Seen | None = None
        self._attacks: dict[str, Seen] = {}
        self._made: tuple[str, UnlearnedRoot] | None = None
        self._tuning: Batches | None = None
        if problem.samples is not None and has_classes(problem.record.labels):
            self._tuning = tuning_data(problem.owner, problem.record)

    @property
    def best(self) -> tuple[str, UnlearnedRoot] | None:
        if self._made is None or self._best_seen is None:
            return self._made
        name, made = self._made
        figures = ", ".join(
            f"{one} {seen.attack(self._odd):.3f}" for one, seen in self._attacks.items()
        )
        note = f"{made.note}; attack on losses, of which {self._best_seen.margin:.3f} above or "
        note += f"below 0.5 may be chance, after {figures}"
        return name, replace(made, note=note)

    def settled_by(self, name: str, made: UnlearnedRoot) -> bool:
        """Take an attempt, and return whether no other one is needed.

        Args:
            name: of the method.
            made: what it made.
        """
        if self._tuning is None or self._problem.forget is None:
            self._made = name, made
            return True
        if self._before is None:
            self._before = self._look(self._problem.weights)
            self._learn_labels(self._before)
        seen = self._look(made.weights)
        self._attacks[name] = seen
        self._learn_labels(seen)
        if self._best_seen is None or self._rank(seen) < self._rank(self._best_seen):
            self._made, self._best_seen = (name, made), seen
        costly, off = self._rank(seen)
        return not costly and off <= seen.margin

    def _look(self, weights: Mapping[str, Tensor]) -> Seen:
        problem = self._problem
        assert problem.forget is not None
        assert self._tuning is not None
        return look(problem.owner, problem.record, weights, problem.forget, self._tuning)

    def _learn_labels(self, seen: Seen) -> None:
        """Take over what a model that keeps what is to be kept tells of odd labels."""
        if seen.tells_odd and not self._is_costly(seen):
            self._odd = max(self._odd, seen.odd)

    def _rank(self, seen: Seen) -> tuple[bool, float]:
        """Return whether an attempt costs too much, and how far it is from unseen, or its loss."""
        if self._is_costly(seen):
            return True, seen.loss
        return False, abs(seen.attack(self._odd) - 0.5)

    def _is_costly(self, seen: Seen) -> bool:
        assert self._before is not None
        return not seen.loss <= self._before.loss + MOST_RISE


def _installed() -> list[str]:
    return list(installed(GROUP))


def _loaded(name: str) -> RootMethod:
    point = installed(GROUP)[name]
    try:
        return cast("RootMethod", point.load()())
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected root method {name!r} to be a class without arguments in {point.value!r}, "
            f"but got: {error}."
        ) from error
