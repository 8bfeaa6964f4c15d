"""The interface of root methods, their entry points, and the choice among them.

A root method computes the weights of a root after unlearning, by whatever means.  Descendants
inherit the difference, so they need not know which method it was.  Methods are entry points of the
group `disinherit.root_methods`, so another package adds its own by naming it there::

    [project.entry-points."disinherit.root_methods"]
    mine = "my_package.unlearning:MyRootMethod"
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, cast

from torch import Tensor

from disinherit.client.owner.owner import Batches, Owner
from disinherit.common.errors import (
    DataError,
    DisinheritError,
    InputError,
    RequestError,
    StoreError,
)
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO, Method

_log = logging.getLogger(__name__)

GROUP = "disinherit.root_methods"

AUTO_ORDER = ("replay", "ekfac", "neggrad+", "finetune", "distil", "dampening")
"""Methods from best to worst, as measured; those that are not installed are skipped.

Measured at roots on Fashion-MNIST with 150 samples to forget, relabelled ones or ordinary ones.
A step with registered curvature brings the attack on losses of relabelled samples closest to that
of a replay, or NegGrad+ for roots that have fitted them entirely.  Fine-tuning forgets little;
distillation towards a uniform teacher makes ordinary samples stand out as never seen; dampening
costs the most accuracy.
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
    """

    weights: dict[str, Tensor]
    exact: bool = False
    steps: int = 0
    note: str = ""


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
        name: of the method, or `auto` for the best that can be done, in the order of `AUTO_ORDER`:
            one that fails on the way is followed by the next.  Methods of other packages are taken
            by name only, and so is dampening where nothing is to be kept: it would change nothing,
            or destroy the root.

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
                return one, method.unlearn(problem)
            except StoreError:  # such as a full disk: it passes, and a worse method would stay
                raise
            except DisinheritError as error:
                if name != AUTO:
                    raise
                reason = str(error)
                _log.warning("root method %r failed: %s", one, reason)
        reasons.append(f"{one}: {reason}")
    what = "a root method" if name == AUTO else f"root method {name!r}"
    raise DataError(
        f"Expected {what} that can be done for root {problem.record.id!r}, but none can. "
        + " ".join(reasons)
    )


def _installed() -> list[str]:
    return sorted({point.name for point in entry_points(group=GROUP)})


def _loaded(name: str) -> RootMethod:
    point = next(point for point in entry_points(group=GROUP) if point.name == name)
    try:
        return cast("RootMethod", point.load()())
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected root method {name!r} to be a class without arguments in {point.value!r}, "
            f"but got: {error}."
        ) from error
