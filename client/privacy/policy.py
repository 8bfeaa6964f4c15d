"""The release policy: conditions on Fisher information and changes of roots that leave an owner.

The policy belongs to the owner.  No request can loosen it.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from disinherit.common.encodings import Encoding, SummaryForm
from disinherit.common.errors import InputError, WithheldError
from disinherit.common.fields import settle
from disinherit.common.settings import check


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """Conditions on what an owner sends for a root: Fisher information, or its change.

    Attributes:
        min_forget_samples: least number of samples in each packet, and in each group that all
            releases together separate; the Fisher information of a few samples reveals each.
        encoding: longest encoding of Fisher information; a request may ask for a shorter one.
        clip_norm: bound C on the L2 norm of each sample's squared gradient of each parameter; 0
            for none.
        noise_multiplier: Gaussian noise on each mean over n samples has a standard deviation of
            this times C / n; 0 for none.
        max_sample_share: largest share of a packet's sum from a single sample, in (0, 1]; 1 for no
            bound.  A number of samples does not bound the contribution of one.
        delta_min_samples: least number of samples behind the change of a root; more than
            `min_forget_samples`, as a change reveals more.
        delta_root_methods: root methods whose changes may be released; empty for all.
        release_deltas: whether changes of roots may be released at all.
        summaries: form of new Fisher summaries below the head: `exact`, `factored`, or `auto`, for
            exact ones up to 2²⁸ values.  What is released of a factored summary is factored, too.

    Raises:
        InputError: if a value has another type or is out of range.
    """

    min_forget_samples: int = 1
    encoding: Encoding = Encoding.FULL
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    max_sample_share: float = 1.0
    delta_min_samples: int = 1
    delta_root_methods: tuple[str, ...] = ()
    release_deltas: bool = True
    summaries: SummaryForm = SummaryForm.AUTO

    def __post_init__(self) -> None:
        """Check every value."""
        settle(self, "a release policy", InputError)
        for name in ("min_forget_samples", "delta_min_samples"):
            least = getattr(self, name)
            if least < 1:
                raise InputError(
                    f"Expected a whole number of at least 1 as {name}, but got {least!r}."
                )
        share = self.max_sample_share
        if not 0 < share <= 1:
            raise InputError(f"Expected max_sample_share in (0, 1], but got {share!r}.")
        for name in ("clip_norm", "noise_multiplier"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"Expected a number of at least 0 as {name}, but got {value!r}.")
        if self.noise_multiplier and not self.clip_norm:
            raise InputError(
                f"Expected clip_norm > 0 with noise_multiplier {self.noise_multiplier}, as the "
                "noise is in proportion to it, but got none."
            )

    def stricter(self, other: "ReleasePolicy") -> "ReleasePolicy":
        """Return the policy that satisfies both.

        Example:
            >>> both = ReleasePolicy(20).stricter(ReleasePolicy(5, Encoding.LOG8))
            >>> both == ReleasePolicy(20, Encoding.LOG8)
            True
        """
        bounds = [norm for norm in (self.clip_norm, other.clip_norm) if norm]
        lists = [set(one.delta_root_methods) for one in (self, other) if one.delta_root_methods]
        methods = tuple(sorted(set.intersection(*lists))) if lists else ()
        agreed = bool(methods) or not lists
        return ReleasePolicy(
            min_forget_samples=max(self.min_forget_samples, other.min_forget_samples),
            max_sample_share=min(self.max_sample_share, other.max_sample_share),
            encoding=self.encoding.shorter(other.encoding),
            summaries=self.summaries.shorter(other.summaries),
            clip_norm=min(bounds, default=0.0),
            noise_multiplier=max(self.noise_multiplier, other.noise_multiplier),
            delta_min_samples=max(self.delta_min_samples, other.delta_min_samples),
            delta_root_methods=methods,
            release_deltas=self.release_deltas and other.release_deltas and agreed,
        )

    def for_deltas(self) -> "ReleasePolicy":
        """Return the policy with the number of samples that the change of a root needs.

        Example:
            >>> ReleasePolicy(5, delta_min_samples=50).for_deltas().min_forget_samples
            50
        """
        return replace(
            self, min_forget_samples=max(self.min_forget_samples, self.delta_min_samples)
        )

    def check_samples(self, model: str, count: int) -> None:
        """Refuse a release of too few samples.

        Args:
            model: the root.
            count: number of samples behind a packet of it.

        Raises:
            WithheldError: if the number is below the policy's; the message does not contain it.
        """
        if count < self.min_forget_samples:
            raise WithheldError(
                f"Expected at least {self.min_forget_samples} samples behind what is released of "
                f"model {model!r}, by its owner's release policy, but got fewer. Forget more of "
                "them in one request, or ask the owner."
            )

    def check_cell(self, model: str, count: int | None) -> None:
        """Refuse a release that would, together with earlier ones, separate too few samples.

        Args:
            model: the root.
            count: number of samples in the smallest group that all releases together separate;
                `None` if unknown.

        Raises:
            WithheldError: if the number is below the policy's, or unknown.
        """
        if self.min_forget_samples > 1 and count is None:
            raise WithheldError(
                "Expected to know that a release, with earlier ones, separates no fewer than "
                f"{self.min_forget_samples} samples of model {model!r}, by its owner's release "
                "policy, but it is unknown which samples earlier releases were of. "
                "Give the owner `sample_ids` and the data of its earlier versions, or forget in "
                "one request."
            )
        if self.min_forget_samples > 1 and count is not None and count < self.min_forget_samples:
            raise WithheldError(
                "Expected a release that, with earlier ones of its owner, separates no fewer than "
                f"{self.min_forget_samples} samples of model {model!r}, by its owner's release "
                "policy, but its difference to earlier releases would be of fewer. Forget what "
                "was asked for before and this in one request."
            )

    def check_delta(self, model: str, root_method: str = "") -> None:
        """Refuse the release of a change of a root.

        Args:
            model: the root.
            root_method: the root method that made the change; empty before there is one.

        Raises:
            WithheldError: if the policy allows no changes, or none of this root method.
        """
        if not self.release_deltas:
            raise WithheldError(
                f"Expected to release the change of model {model!r}, but its owner set "
                "release_deltas to false. Name the mechanism fisher, or ask the owner."
            )
        if root_method and self.delta_root_methods and root_method not in self.delta_root_methods:
            raise WithheldError(
                f"Expected a change of model {model!r} by {' or '.join(self.delta_root_methods)}, "
                f"by its owner's delta_root_methods, but it is by {root_method}. Name one of these "
                "as the root method, or ask the owner."
            )

    def check_share(self, model: str, share: float) -> None:
        """Refuse the release of a sum that is dominated by one sample.

        Args:
            model: the root.
            share: share of the largest sample in the sum.

        Raises:
            WithheldError: if the share exceeds the policy's; the message does not contain it.
        """
        if share > self.max_sample_share:
            raise WithheldError(
                f"Expected no sample of model {model!r} to be more than "
                f"{self.max_sample_share:.0%} of the Fisher information to be released, by "
                "its owner's max_sample_share, but one is. Forget more samples in one "
                "request, or ask the owner."
            )


OPEN = ReleasePolicy()
"""A policy without conditions."""


@runtime_checkable
class SetsPolicy(Protocol):
    """An owner with its own release policy."""

    @property
    def release_policy(self) -> ReleasePolicy:
        """The owner's release policy."""
        ...


def policy_of(owner: object) -> ReleasePolicy:
    """Return an owner's release policy; `OPEN` without one."""
    return owner.release_policy if isinstance(owner, SetsPolicy) else OPEN


def read_policy(values: object, where: str) -> ReleasePolicy:
    """Return the release policy of a configuration.

    Args:
        values: a table of the fields of `ReleasePolicy`; missing ones have their default.
        where: name of the source, for the error message.

    Raises:
        InputError: if a key is unknown, or a value is wrong.

    Example:
        >>> read_policy({"min_forget_samples": 20, "encoding": "log8"}, "agent.toml").encoding
        <Encoding.LOG8: 'log8'>
    """
    return check(ReleasePolicy, values, where)
