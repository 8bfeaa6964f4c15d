"""Registering and listing model versions."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from disinherit.common.errors import (
    GraphError,
    NotAllowedError,
    NotFoundError,
    NotNowError,
    RequestError,
)
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.server.service.paging import Key, fetch_page
from disinherit.server.service.principals import Principal, Role
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1.graph_pb2 import Graph
from disinherit.v1.graph_pb2 import ModelRecord as ModelRecordMessage


class Models:
    """What callers may do with model versions.

    Args:
        store: the coordinator's store.
        changed: called with its owner when a version was added, which may join a campaign.
    """

    def __init__(self, store: CoordinatorStore, changed: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed

    def register(
        self, caller: Principal, record: ModelRecord, parents: Sequence[Inheritance]
    ) -> ModelRecord:
        """Add a version with what it was derived from, or complete the record of a known one.

        When a version was created and what its status is, the coordinator knows better: a new one
        is younger than its parents whatever a device's clock says, a known one stays as it is.

        Args:
            caller: who registers it.
            record: the version.
            parents: the edges that lead to it; all of them, or none to leave them as they are.

        Returns:
            The record as it is stored.

        Raises:
            InputError: if it is another owner's, or the graph refuses it; nothing is stored then.
        """
        if caller.role is Role.OWNER and record.owner != caller.owner:
            raise NotAllowedError(
                f"Expected a model of owner {caller.owner!r}, whose token was shown, but got one "
                f"of {record.owner!r}."
            )
        complete, new = self._store.register(record, parents, actor=caller.actor)
        if new:
            self._changed(record.owner)
        return complete

    def withdraw(self, caller: Principal, model_id: str) -> ModelRecord:
        """Take back a registration, and return the record as it was.

        Args:
            caller: who withdraws it; an owner its own versions only.
            model_id: the version.

        Raises:
            InputError: if there is no such version, or something depends on it.
        """
        owner = caller.owner if caller.role is Role.OWNER else ""
        try:
            return self._store.withdraw(model_id, owner, actor=caller.actor)
        except GraphError as error:
            raise NotFoundError(str(error)) from None
        except RequestError as error:
            raise NotNowError(str(error)) from None

    def list(
        self, caller: Principal, owner: str, size: int, token: str
    ) -> tuple[Sequence[ModelRecordMessage], str]:
        """Return a page of the versions, the oldest first, and the token of the next page.

        Args:
            caller: who asks; an owner sees its own only.
            owner: whose; `""` for all.
            size: of a page; 0 for the default.
            token: of the page; `""` for the first.

        Raises:
            InputError: if the token is none, or the caller may not see this owner's.
        """
        if caller.role is Role.OWNER:
            if owner not in ("", caller.owner):
                raise NotAllowedError(
                    f"Expected the owner {caller.owner!r}, whose token was shown, but got "
                    f"{owner!r}."
                )
            owner = caller.owner

        def after(last: Key | None, count: int) -> Sequence[ModelRecord]:
            return self._store.page_models(owner, cast("tuple[int, str] | None", last), count)

        question = f"models of {owner!r}"
        return fetch_page(
            after,
            lambda record: (record.created_us, record.id),
            (int, str),
            size,
            token,
            question,
            record_to_proto,
        )

    def graph(self) -> Iterator[Graph]:
        """Yield the whole inheritance graph in parts."""
        yield from self._store.graph_parts()
