"""Registration and listing of model versions."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from disinherit.common import limits
from disinherit.common.errors import (
    GraphError,
    InputError,
    NotAllowedError,
    NotFoundError,
    NotNowError,
    RequestError,
)
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.common.limits import PAGE, clipped
from disinherit.common.text import one_line
from disinherit.common.wire.received import received_edges, received_record
from disinherit.server.service.paging import page_size, read_token, write_token
from disinherit.server.service.principals import Principal, Role
from disinherit.server.store.graph_messages import graph_messages
from disinherit.server.store.lineage import withdraw_version
from disinherit.server.store.model_pages import page_rows
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import parse_all
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.graph_pb2 import MODEL_STATUS_ACTIVE

_MODELS = pb.ListModelsResponse.DESCRIPTOR.fields_by_name["models"].number


class Models:
    """Handlers of calls about model versions.

    Args:
        store: the coordinator's store.
        changed: called with the owner of each added version, which may join a campaign.
    """

    def __init__(self, store: CoordinatorStore, changed: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed

    def register(
        self, caller: Principal, record: ModelRecord, parents: Sequence[Inheritance]
    ) -> ModelRecord:
        """Add a version with its parents, or complete the record of a known version.

        The coordinator sets creation time and status: a new version is younger than its parents
        regardless of the device's clock; a known version keeps both.

        Args:
            caller: the caller.
            record: the version.
            parents: all edges that lead to it, or none to keep the known edges.

        Returns:
            The stored record.

        Raises:
            InputError: if it belongs to another owner, or the graph refuses it; nothing is stored.
        """
        _check_own(caller, record)
        complete, new = self._store.register(record, parents, actor=caller.actor)
        if new:
            self._changed(record.owner)
        return complete

    def register_all(
        self, caller: Principal, messages: Sequence[pb.RegisterModelRequest]
    ) -> pb.RegisterModelsResponse:
        """Register many versions in one transaction; what is refused leaves the others.

        Args:
            caller: the caller.
            messages: as they were received, parents first.

        Raises:
            InputError: if there are more than a message may have.
        """
        limits.BATCH.check_items(messages, "the registrations in one message")
        size = sum(message.ByteSize() for message in messages)
        limits.BATCH_BYTES.check(size, "a message with registrations")
        answer = pb.RegisterModelsResponse()
        sound: list[tuple[pb.RegisteredModel, ModelRecord, list[Inheritance]]] = []
        for message in messages:
            one = answer.models.add(id=clipped(message.record.id, limits.ID))
            try:
                record, parents = received_version(message)
                _check_own(caller, record)
                sound.append((one, record, parents))
            except InputError as error:
                one.refused = _line(error)
        versions = [(record, parents) for _, record, parents in sound]
        results = self._store.register_all(versions, actor=caller.actor)
        added = set()
        for (one, record, _), result in zip(sound, results, strict=True):
            if isinstance(result, InputError):
                one.refused = _line(result)
                continue
            one.created_us = result[0].created_us
            if result[1]:
                added.add(record.owner)
        for owner in sorted(added):
            self._changed(owner)
        return answer

    def withdraw(self, caller: Principal, model_id: str) -> ModelRecord:
        """Withdraw a registration, and return its last record.

        Args:
            caller: the caller; an owner may withdraw only its own versions.
            model_id: the version.

        Raises:
            InputError: if the version is unknown, or something depends on it.
        """
        owner = caller.owner if caller.role is Role.OWNER else ""
        try:
            with self._store.writing(together=True) as db:
                return withdraw_version(db, model_id, owner, caller.actor)
        except GraphError as error:
            raise NotFoundError(str(error)) from None
        except RequestError as error:
            raise NotNowError(str(error)) from None

    def list(self, caller: Principal, owner: str, size: int, token: str) -> pb.ListModelsResponse:
        """Return a page of the versions as they are stored, the oldest first.

        Args:
            caller: the caller; an owner sees only its own versions.
            owner: the owner of the versions; `""` for all.
            size: page size; 0 for the default.
            token: page token; `""` for the first page.

        Raises:
            InputError: if the token is invalid, or the caller may not see this owner's versions.
        """
        if caller.role is Role.OWNER:
            if owner not in ("", caller.owner):
                raise NotAllowedError(
                    f"Expected the owner {caller.owner!r}, who holds this token, but got {owner!r}."
                )
            owner = caller.owner
        question = f"models of {owner!r}"
        after = cast("tuple[int, str] | None", read_token(token, question, (int, str)))
        with self._store.reading() as db:
            rows, more = page_rows(db, owner, after, page_size(size), PAGE.most)
        page = parse_all(pb.ListModelsResponse, _MODELS, (record for _, _, record in rows))
        if more:
            created_us, id, _ = rows[-1]
            page.next_page_token = write_token((created_us, id), question)
        return page

    def graph(self) -> Iterator[bytes]:
        """Yield the whole inheritance graph in parts, encoded."""
        with self._store.reading() as db:
            parts = graph_messages(db)
        yield from parts


def received_version(
    message: pb.RegisterModelRequest,
) -> tuple[ModelRecord, list[Inheritance]]:
    """Return the version in a message from outside, and the edges that lead to it.

    Raises:
        InputError: if it exceeds the limits, or a value is malformed.
    """
    if not message.record.status:  # which the coordinator sets anyway
        message.record.status = MODEL_STATUS_ACTIVE
    parents = received_edges(message.parents)
    return received_record(message.record), parents


def _check_own(caller: Principal, record: ModelRecord) -> None:
    if caller.role is Role.OWNER and record.owner != caller.owner:
        raise NotAllowedError(
            f"Expected a model of owner {caller.owner!r}, who holds this token, but got one "
            f"of {record.owner!r}."
        )


def _line(error: InputError) -> str:
    return clipped(one_line(str(error)), limits.REASON)
