"""Listing of owners."""

from collections.abc import Sequence
from typing import cast

from disinherit.server.service.packing import owner_to_proto
from disinherit.server.service.paging import Key, fetch_page
from disinherit.server.store.owners import KnownOwner, page_owners
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import coordinator_pb2 as pb


class Owners:
    """Handlers of calls about owners.

    Args:
        store: the coordinator's store.
    """

    def __init__(self, store: CoordinatorStore) -> None:
        self._store = store

    def list(self, owner: str, size: int, token: str) -> tuple[Sequence[pb.Owner], str]:
        """Return a page of the owners by name, and the token of the next page.

        Args:
            owner: only this owner; `""` for all.
            size: page size; 0 for the default.
            token: page token; `""` for the first page.

        Raises:
            InputError: if the token is invalid.
        """

        def after(last: Key | None, count: int) -> Sequence[KnownOwner]:
            name = "" if last is None else cast("str", last[0])
            with self._store.reading() as db:
                return page_owners(db, name, count, owner)

        return fetch_page(
            after,
            lambda found: (found.name,),
            (str,),
            size,
            token,
            f"owners {owner!r}",
            owner_to_proto,
        )
