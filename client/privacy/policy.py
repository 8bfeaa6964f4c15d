"""The release policy: conditions on Fisher information that leaves an owner.

The policy is the owner's own.  Nothing that a request says can loosen it.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from disinherit.common.encodings import Encoding
from disinherit.common.errors import InputError, WithheldError
from disinherit.common.settings import check


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """What must hold for Fisher information that an owner sends as that of a root.

    Attributes:
        min_forget_samples: samples behind each packet, at least, and in each group that all
            packets released so far tell apart; the Fisher information of a few tells of each.
        encoding: how values are stored, at least as short as this; a request may ask for shorter.
        clip_norm: bound C on the L2 norm of each sample's squared gradient of each parameter; 0
            for none.
        noise_multiplier: Gaussian noise is added to each mean over n samples, of a standard
            deviation of this times C / n; 0 for none.
        max_sample_share: share of a packet's sum that is of its largest sample, at most, in (0, 1];
            1 for no bound.  A number of samples says nothing of what one of them contributes.

    Raises:
        InputError: if a value is out of range.
    """

    min_forget_samples: int = 1
    encoding: Encoding = Encoding.FULL
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    max_sample_share: float = 1.0

    def __post_init__(self) -> None:
        """Check all of it."""
        if type(self.min_forget_samples) is not int or self.min_forget_samples < 1:
            raise InputError(
                "Expected a whole number of at least 1 as min_forget_samples, but got "
                f"{self.min_forget_samples!r}."
            )

        share = self.max_sample_share
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise InputError(f"Expected max_sample_share in (0, 1], but got {share!r}.")
        for name in ("clip_norm", "noise_multiplier"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise InputError(f"Expected a number of at least 0 as {name}, but got {value!r}.")
        if self.noise_multiplier and not self.clip_norm:
            raise InputError(
                f"Expected clip_norm > 0 with noise_multiplier {self.noise_multiplier}, as the "
                "noise is in proportion to it, but got none."
            )

    def stricter(self, other: "ReleasePolicy") -> "ReleasePolicy":
        """Return what holds where both do.

        Example:
            >>> both = ReleasePolicy(20).stricter(ReleasePolicy(5, Encoding.LOG8))
            >>> both == ReleasePolicy(20, Encoding.LOG8)
            True
        """
        bounds = [norm for norm in (self.clip_norm, other.clip_norm) if norm]
        return ReleasePolicy(
            min_forget_samples=max(self.min_forget_samples, other.min_forget_samples),
            max_sample_share=min(self.max_sample_share, other.max_sample_share),
            encoding=self.encoding.shorter(other.encoding),
            clip_norm=min(bounds, default=0.0),
            noise_multiplier=max(self.noise_multiplier, other.noise_multiplier),
        )

    def check_samples(self, model: str, count: int) -> None:
        """Refuse to release what too few samples are behind.

        Args:
            model: the root.
            count: samples behind a packet of it.

        Raises:
            WithheldError: if it is less than the policy says; how much less stays here.
        """
        if count < self.min_forget_samples:
            raise WithheldError(
                f"Expected at least {self.min_forget_samples} samples behind Fisher information of "
                f"model {model!r} that is to be released, as its owner's min_forget_samples says, "
                "but got fewer. Forget more of them in one request, or ask the owner."
            )

    def check_cell(self, model: str, count: int | None) -> None:
        """Refuse a release that, with those before it, would tell too few samples apart.

        Args:
            model: the root.
            count: samples in the smallest group that all releases together would tell apart; `None`
                if it cannot be known.

        Raises:
            WithheldError: if it is less than the policy says, or unknown.
        """
        if self.min_forget_samples > 1 and (count is None or count < self.min_forget_samples):
            raise WithheldError(
                "Expected Fisher information that, with what was released before of the same data, "
                f"tells no fewer than {self.min_forget_samples} samples of model {model!r} apart, "
                "as its owner's min_forget_samples says, but its difference to earlier releases "
                "would be of fewer. Forget what was asked for before and this in one request."
            )

    def check_share(self, model: str, share: float) -> None:
        """Refuse to release a sum that is mostly of one sample.

        Args:
            model: the root.
            share: the largest sample's share of the sum.

        Raises:
            WithheldError: if it is more than the policy says; how much more stays here.
        """
        if share > self.max_sample_share:
            raise WithheldError(
                f"Expected no sample of model {model!r} to be more than "
                f"{self.max_sample_share:.0%} of the Fisher information that is to be released, as "
                "its owner's max_sample_share says, but one is. Forget more samples in one "
                "request, or ask the owner."
            )


OPEN = ReleasePolicy()
"""Conditions that are always met."""


@runtime_checkable
class SetsPolicy(Protocol):
    """An owner with conditions of its own on what is released."""

    @property
    def release_policy(self) -> ReleasePolicy:
        """The conditions."""
        ...


def policy_of(owner: object) -> ReleasePolicy:
    """Return an owner's own conditions; `OPEN` if it sets none."""
    return owner.release_policy if isinstance(owner, SetsPolicy) else OPEN


def read_policy(values: object, where: str) -> ReleasePolicy:
    """Return the conditions that a configuration sets.

    Args:
        values: a table of the fields of `ReleasePolicy`; what is left out has its default.
        where: what it is, for the error message.

    Raises:
        InputError: if there is an unknown key, or a value is wrong.

    Example:
        >>> read_policy({"min_forget_samples": 20, "encoding": "log8"}, "agent.toml").encoding
        <Encoding.LOG8: 'log8'>
    """
    return check(ReleasePolicy, values, where)
