"""What is handed out about the past: the audit log, and the keys that sign."""

from collections.abc import Iterator, Sequence

from disinherit.common.dsse import Signer
from disinherit.common.errors import RequestError
from disinherit.server.service.refusals import NotFoundError
from disinherit.server.signing import KnownKey
from disinherit.server.store import CoordinatorStore


class Records:
    """What callers may have of the coordinator's records.

    Args:
        store: the coordinator's store.
        signer: signs what is handed out; `None` to sign nothing.
    """

    def __init__(self, store: CoordinatorStore, signer: Signer | None) -> None:
        self._store = store
        self._signer = signer

    def audit_lines(self, request_id: str) -> Iterator[bytes]:
        """Yield the lines of an export of the audit log, signed if there is a key.

        Args:
            request_id: only what is about this request; `""` for all.

        Raises:
            NotFoundError: if there is no such request.
        """
        if request_id:
            self._check_known(request_id)
        return self._store.audit_lines(request_id, self._signer)

    def signing_keys(self) -> Sequence[KnownKey]:
        """Return the public keys of all signatures there are, the oldest first."""
        return self._store.signing_keys()

    def _check_known(self, request_id: str) -> None:
        try:
            self._store.request(request_id)
        except RequestError as error:
            raise NotFoundError(str(error)) from None
