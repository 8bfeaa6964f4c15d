"""Unlearning request: what to forget, at which roots, by which method, in which order of owners."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated

from msgspec import Meta

from disinherit.common.errors import RequestError
from disinherit.common.fields import settle
from disinherit.common.graph.records import check_id
from disinherit.common.method import Method
from disinherit.common.text import check_utf8
from disinherit.common.wire.samples import SampleDigests, samples_of
from disinherit.v1 import unlearning_pb2 as pb

LONGEST_RETENTION = 100 * 366 * 24 * 3600
MOST_WAVES = 100
MOST_OWNERS = 2**32 - 1
"""Bound on the owners of a wave, on the wire."""

_WAVE = re.compile(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,9})?)%")


@dataclass(frozen=True, slots=True)
class Wave:
    """Size of one wave of a staged roll-out: a share of all owners, or a number of them.

    Attributes:
        fraction: share of all owners, in (0, 1].
        count: number of owners.

    Raises:
        RequestError: if a value has another type, the wave would be empty, or both are given.
    """

    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Check the size."""
        settle(self, "a wave", RequestError)
        if self.fraction is not None and self.count is not None:
            raise RequestError("Expected a wave of a share or of a number of owners, but got both.")
        fits = (self.count or 0) > 0 if self.fraction is None else 0 < self.fraction <= 1
        if not fits:
            raise RequestError(
                "Expected waves of a share of the owners above 0 and up to 100%, or of at least "
                f"one owner, but got {self}."
            )
        if self.count is not None:
            _check_owners(self.count, "a wave")

    def __str__(self) -> str:
        """Return the size in the form that `parse` reads."""
        return str(self.count or 0) if self.fraction is None else f"{100 * self.fraction:g}%"

    def to_proto(self) -> pb.Wave:
        """Return the message for this wave."""
        if self.fraction is None:
            return pb.Wave(count=self.count or 0)
        return pb.Wave(fraction=self.fraction)

    @classmethod
    def parse(cls, size: str) -> "Wave":
        """Return the wave in a text.

        Raises:
            RequestError: if the text is neither a share nor a number.

        Example:
            >>> Wave.parse("10%")
            Wave(fraction=0.1, count=None)
        """
        match = _WAVE.fullmatch(size)
        if match is None:
            raise RequestError(f"Expected a wave such as 10% or 25, but got {size!r}.")
        return cls(count=int(match[1])) if match[1] else cls(fraction=float(match[2]) / 100)


@dataclass(frozen=True, slots=True)
class RollOut:
    """Order in which owners are asked to apply a request, and the gates between waves.

    Canary owners come first, then the waves, then all others.

    Attributes:
        canaries: owners in the first wave, by name.
        canary_count: number of owners in the first wave, instead of names; 0 for none.
        waves: further waves.
        min_success: share of a wave's models that must be verified before the next wave begins;
            `None` for all.
        max_retain_drop: points of accuracy on kept data that a model may lose; `None` for no limit.
        max_error_rate: share of a wave's models that may fail; `None` for no limit.

    Raises:
        RequestError: if a value has another type or is out of range, or a name is malformed.

    Example:
        >>> RollOut(canaries=["owner-3"], waves=[Wave.parse("10%"), Wave(count=25)]).canaries
        ('owner-3',)
    """

    canaries: Sequence[str] = ()
    canary_count: int = 0
    waves: Sequence[Wave] = ()
    min_success: float | None = None
    max_retain_drop: float | None = None
    max_error_rate: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        settle(self, "a roll-out", RequestError)
        for name in self.canaries:
            check_id(name, "owner name", RequestError)
        _check_owners(self.canary_count, "the first wave")
        if self.canaries and self.canary_count:
            raise RequestError(
                f"Expected canary owners by name or by number, but got {len(self.canaries)} names "
                f"and the number {self.canary_count}."
            )
        if len(self.waves) > MOST_WAVES:
            raise RequestError(f"Expected at most {MOST_WAVES} waves, but got {len(self.waves)}.")
        share = math.fsum(wave.fraction or 0 for wave in self.waves)
        if share > 1 + 1e-9:
            raise RequestError(
                f"Expected waves of at most 100% of the owners together, but got {100 * share:g}%."
            )
        if self.min_success is not None and not 0 < self.min_success <= 1:
            raise RequestError(
                "Expected a share of models to succeed above 0 and up to 1, but got "
                f"{self.min_success:g}."
            )
        if self.max_retain_drop is not None and not 0 <= self.max_retain_drop <= 100:
            raise RequestError(
                "Expected an allowed drop of retain accuracy from 0 to 100 points, but got "
                f"{self.max_retain_drop:g}."
            )
        if self.max_error_rate is not None and not 0 <= self.max_error_rate <= 1:
            raise RequestError(
                f"Expected an allowed error rate from 0 to 1, but got {self.max_error_rate:g}."
            )

    def to_proto(self) -> pb.RollOut:
        """Return the message for this roll-out."""
        return pb.RollOut(
            canaries=self.canaries,
            canary_count=self.canary_count,
            waves=[wave.to_proto() for wave in self.waves],
            min_success=self.min_success,
            max_retain_drop=self.max_retain_drop,
            max_error_rate=self.max_error_rate,
        )

    @classmethod
    def from_proto(cls, message: pb.RollOut) -> "RollOut":
        """Return the roll-out of a message.

        Raises:
            RequestError: if a value is out of range.
        """
        return cls(
            canaries=tuple(message.canaries),
            canary_count=message.canary_count,
            waves=[
                Wave(fraction=wave.fraction)
                if wave.HasField("fraction")
                else Wave(count=wave.count)
                for wave in message.waves
            ],
            min_success=message.min_success if message.HasField("min_success") else None,
            max_retain_drop=(
                message.max_retain_drop if message.HasField("max_retain_drop") else None
            ),
            max_error_rate=message.max_error_rate if message.HasField("max_error_rate") else None,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What to forget, and how: classes, samples, or a client's whole contribution.

    Attributes:
        forget: root -> classes to forget there; a root is a model trained directly on them. With a
            client: its roots, without classes.
        samples: root -> its training samples to forget.
        client: an owner whose whole contribution is to be forgotten. Without roots in `forget` the
            coordinator adds the models that it trained.
        method: method of unlearning, with the mechanism for this kind of request if it is `auto`.
        id: permanent id; by default derived from the content, so that the same request submitted
            again is one request.
        reason: explanation for people.
        roll_out: order in which owners are asked; `None` for all at once.
        retention_seconds: time for which owners keep superseded versions after the end; 0 for ever.

    Raises:
        RequestError: if there is nothing to forget, more than one kind of it, or a value is out of
            range.

    Example:
        >>> request = Request(forget={"base": ["cat", "dog"]})
        >>> request.id[:7], request.method.scope
        ('forget-', 'head')
    """

    forget: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    samples: Mapping[str, Annotated[SampleDigests, Meta(extra={"secret": True})]] = field(
        default_factory=dict, hash=False
    )  # never quoted: it may be an id that should not have come here
    client: str = ""
    method: Method = field(default_factory=Method)
    id: str = ""
    reason: str = ""
    roll_out: RollOut | None = None
    retention_seconds: int = 0

    def __post_init__(self) -> None:
        """Check every value, and make an id if it is empty."""
        if isinstance(self.forget, Mapping):
            listed = {
                root: (names,) if isinstance(names, str) else names
                for root, names in self.forget.items()
            }
            object.__setattr__(self, "forget", listed)
        settle(self, "a request", RequestError)
        self._check_names()
        self._check_kind()
        by_class = not self.samples and not self.client
        object.__setattr__(self, "method", self.method.settled(by_class=by_class))
        if not 0 <= self.retention_seconds <= LONGEST_RETENTION:
            raise RequestError(
                f"Expected a retention window of at most {LONGEST_RETENTION} seconds, a hundred "
                f"years, but got {self.retention_seconds}."
            )
        if not self.id:
            content = self.to_proto().SerializeToString(deterministic=True)
            object.__setattr__(self, "id", f"forget-{hashlib.sha256(content).hexdigest()[:12]}")
        check_id(self.id, "request id", RequestError)

    def __reduce__(self) -> tuple[object, ...]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {"forget": dict(self.forget), "samples": dict(self.samples)}
        return Request, tuple(values.values())

    def _check_names(self) -> None:
        check_utf8(self.reason, "the reason of a request", RequestError)
        if self.client:
            check_id(self.client, "owner name of the client", RequestError)
        for root in (*self.forget, *self.samples):
            check_id(root, "model id of a root", RequestError)
        for root, names in self.forget.items():
            for place, name in enumerate(names, 1):  # not quoted: it may be the id of a sample
                if not name:
                    raise RequestError(
                        f"Expected names of classes to forget at root {root!r}, but name {place} "
                        "is empty."
                    )
                check_utf8(name, f"class name {place} at root {root!r}", RequestError)

    def _check_kind(self) -> None:
        if self.client:
            named = [root for root, names in self.forget.items() if names]
            _check_client(self.client, [*named, *self.samples])
            return
        if not self.forget and not self.samples:
            raise RequestError(
                "Expected at least one class to forget, or samples or a client instead, but "
                "got none. Name classes and the model that learned them."
            )
        for root, names in self.forget.items():
            if root in self.samples:
                raise RequestError(
                    f"Expected either classes or samples to forget at root {root!r}, but got both."
                )
            if not names:
                raise RequestError(f"Expected classes to forget at root {root!r}, but got none.")
        if self.forget and self.samples:
            raise RequestError(
                "Expected either classes or samples to forget in one request, but got both. Submit "
                "two requests."
            )

    def to_proto(self) -> pb.UnlearningRequest:
        """Return the message for this request."""
        return pb.UnlearningRequest(
            id=self.id,
            reason=self.reason,
            roots=[
                *(pb.Root(model_id=root, classes=names) for root, names in self.forget.items()),
                *(
                    pb.Root(
                        model_id=root,
                        samples=named.digests,
                        sample_salt=named.salt,
                        ignore_unknown=named.ignore_unknown,
                    )
                    for root, named in self.samples.items()
                ),
            ],
            method=self.method.to_proto(),
            client=self.client,
            roll_out=None if self.roll_out is None else self.roll_out.to_proto(),
            retention_seconds=self.retention_seconds,
        )

    @classmethod
    def from_proto(cls, message: pb.UnlearningRequest) -> "Request":
        """Return the request of a message.

        Raises:
            RequestError: if a value is missing or out of range, or a root is listed twice.
        """
        check_id(message.id, "request id", RequestError)
        roots = [root.model_id for root in message.roots]
        if not roots and not message.client:
            raise RequestError("Expected at least one root to forget at, but got none.")
        if len(set(roots)) != len(roots):
            raise RequestError(f"Expected every root once, but got {', '.join(roots)}.")
        if message.client:
            _check_client(message.client, [root.model_id for root in message.roots if root.samples])
        return cls(
            forget={
                root.model_id: tuple(root.classes)
                for root in message.roots
                if root.classes or not root.samples
            },
            samples={
                root.model_id: named
                for root in message.roots
                if (named := _samples(root)) is not None
            },
            client=message.client,
            method=Method.from_proto(message.method),
            id=message.id,
            reason=message.reason,
            roll_out=(
                RollOut.from_proto(message.roll_out) if message.HasField("roll_out") else None
            ),
            retention_seconds=message.retention_seconds,
        )


def _check_owners(count: int, what: str) -> None:
    if not 0 <= count <= MOST_OWNERS:
        raise RequestError(f"Expected from 0 to {MOST_OWNERS} owners in {what}, but got {count}.")


def _check_client(client: str, roots: Sequence[str]) -> None:
    """Check that a request about a client names nothing at its roots."""
    if roots:
        raise RequestError(
            f"Expected no classes or samples beside client {client!r}, all of whose contribution "
            f"is to be forgotten, but got some at root {roots[0]!r}."
        )


def _samples(root: pb.Root) -> SampleDigests | None:
    try:
        return samples_of(root)
    except RequestError as error:
        raise RequestError(f"Of root {root.model_id!r}: {error}") from error
