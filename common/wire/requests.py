"""Unlearning request: what to forget, at which roots, by which method, in which order of owners."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated

from msgspec import Meta

from disinherit.common.errors import RequestError
from disinherit.common.fields import check_type, settle
from disinherit.common.graph.identifiers import check_id
from disinherit.common.method import Method
from disinherit.common.text import check_utf8
from disinherit.common.wire.roll_out import RollOut
from disinherit.common.wire.samples import SampleDigests, samples_of
from disinherit.v1 import unlearning_pb2 as pb

LONGEST_RETENTION = 100 * 366 * 24 * 3600


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
        id: permanent id; by default derived from the content without the reason, so that the same
            request submitted again is one request.
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
        if self.method.calibration_rounds and not self.client:
            raise RequestError(
                "Expected rounds of calibration where a client is to be forgotten, which takes no "
                "part in them, but got them for classes or samples. Train on as usual."
            )
        by_class = not self.samples and not self.client
        object.__setattr__(self, "method", self.method.settled(by_class=by_class))
        if not 0 <= self.retention_seconds <= LONGEST_RETENTION:
            raise RequestError(
                f"Expected a retention window of at most {LONGEST_RETENTION} seconds, a hundred "
                f"years, but got {self.retention_seconds}."
            )
        if not self.id:
            object.__setattr__(self, "id", derived_id(self.to_proto()))
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
            RequestError: if it is no such message, a value is missing or out of range, or a root is
                listed twice.
        """
        what = "a message disinherit.v1.UnlearningRequest"
        check_type(message, pb.UnlearningRequest, what, RequestError)
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


def derived_id(message: pb.UnlearningRequest) -> str:
    """Return the id of a request by its content, without the reason, which is for people.

    Args:
        message: the request; its own id does not matter.
    """
    content = pb.UnlearningRequest()
    content.CopyFrom(message)
    content.ClearField("id")
    content.ClearField("reason")
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()
    return f"forget-{digest[:12]}"


def with_first_reason(
    message: pb.UnlearningRequest, stored: pb.UnlearningRequest | None
) -> pb.UnlearningRequest:
    """Return a request with the reason of its first submission, if its id is made of its content.

    Args:
        message: the request, which is not modified.
        stored: the stored request with the same id, if any.
    """
    if stored is None or stored.reason == message.reason:
        return message
    made, _, number = message.id.partition(derived_id(message))
    if made or not re.fullmatch(r"(-[0-9]+)?", number):
        return message
    same = pb.UnlearningRequest()
    same.CopyFrom(message)
    same.reason = stored.reason
    return same


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
