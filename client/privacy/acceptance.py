"""Acceptance policy: whose changes an owner applies to its models.

A change of a root comes from another organisation and is added to weights.  What fits a model is
bounded elsewhere; whom an owner trusts with it, the owner alone can say.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from disinherit.common.errors import InputError
from disinherit.common.fields import settle
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.settings import check


@dataclass(frozen=True, slots=True)
class AcceptancePolicy:
    """Conditions on the changes of roots that an owner adds to its models.

    Its own changes are always added, and Fisher information is dampened with as ever.

    Attributes:
        accept_deltas: whether changes of roots of others are added at all.
        refuse_deltas_of: owners whose changes are not.

    Raises:
        InputError: if a value has another type, or a name is that of no owner.
    """

    accept_deltas: bool = True
    refuse_deltas_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every value."""
        settle(self, "an acceptance policy", InputError)
        for name in self.refuse_deltas_of:
            check_owner(name)

    def stricter(self, other: "AcceptancePolicy") -> "AcceptancePolicy":
        """Return the policy that satisfies both.

        Example:
            >>> both = AcceptancePolicy(False).stricter(AcceptancePolicy(refuse_deltas_of=("ben",)))
            >>> both.accept_deltas, both.refuse_deltas_of
            (False, ('ben',))
        """
        return AcceptancePolicy(
            self.accept_deltas and other.accept_deltas,
            tuple(sorted({*self.refuse_deltas_of, *other.refuse_deltas_of})),
        )

    def refusal(self, root: str, sender: str) -> str:
        """Return why a change of another's root is not added, as a clause; `""` if it is.

        Args:
            root: id of the root.
            sender: its owner, as the coordinator says; empty if it does not.
        """
        if not self.accept_deltas:
            return (
                f"its owner takes no changes of roots of others (accept_deltas), and {root!r} is "
                f"{f'of {sender}' if sender else 'not its own'}"
            )
        if sender in self.refuse_deltas_of:
            return f"its owner takes no changes of {sender} (refuse_deltas_of), which has {root!r}"
        if self.refuse_deltas_of and not sender:
            return (
                "its owner takes no changes of some (refuse_deltas_of), and its coordinator does "
                f"not say whose {root!r} is"
            )
        return ""


ANYBODY = AcceptancePolicy()
"""A policy without conditions."""


@runtime_checkable
class SetsAcceptance(Protocol):
    """An owner with its own acceptance policy."""

    @property
    def acceptance_policy(self) -> AcceptancePolicy:
        """The owner's acceptance policy."""
        ...


def acceptance_of(owner: object) -> AcceptancePolicy:
    """Return an owner's acceptance policy; `ANYBODY` without one."""
    return owner.acceptance_policy if isinstance(owner, SetsAcceptance) else ANYBODY


def read_acceptance(values: object, where: str) -> AcceptancePolicy:
    """Return the acceptance policy of a configuration.

    Args:
        values: a table of the fields of `AcceptancePolicy`; missing ones have their default.
        where: name of the source, for the error message.

    Raises:
        InputError: if a key is unknown, or a value is wrong.

    Example:
        >>> read_acceptance({"accept_deltas": False}, "agent.toml").accept_deltas
        False
    """
    return check(AcceptancePolicy, values, where)
