"""Handlers for reports, attestations, the audit log, and signing keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from securesystemslib.dsse import Envelope
from sqlalchemy import Connection

from disinherit.common.errors import InputError, NotFoundError, NotNowError, RequestError
from disinherit.server.reports.report import ModelReport, Report, make_report, report_of
from disinherit.server.reports.statement import attest
from disinherit.server.service.paging import page_size
from disinherit.server.store.audit import entries_after, last_sequence
from disinherit.server.store.request_lines import entries_about
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.signing import KnownKey, find_keys
from disinherit.server.store.store import CoordinatorStore


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of the whole audit log.

    Attributes:
        sequence: number of the last entry; 0 for an empty log.
        head: its hash.
        key_id: id of the key that signs exports and attestations; `""` if nothing is signed.
    """

    sequence: int
    head: str
    key_id: str


class Records:
    """Handlers of calls about the coordinator's records.

    Args:
        store: the coordinator's store.
        seal: signs exports and attestations; `None` to sign nothing.
    """

    def __init__(self, store: CoordinatorStore, seal: SignedLog | None) -> None:
        self._store = store
        self._seal = seal

    def audit_lines(self, request_id: str) -> Iterator[bytes]:
        """Yield the lines of an export of the audit log, signed if there is a key.

        Args:
            request_id: export only entries about this request; `""` for all.

        Raises:
            NotFoundError: if the request is unknown.
        """
        if request_id:
            with self._store.reading() as db:
                _check_known(db, request_id)
        return self._store.audit_lines(request_id, self._seal)

    def signing_keys(self) -> Sequence[KnownKey]:
        """Return the public keys of all signatures, the oldest first."""
        with self._store.reading() as db:
            return find_keys(db)

    def report(
        self, request_id: str, size: int, token: str
    ) -> tuple[Report, Sequence[ModelReport], str]:
        """Return the report of a campaign, a page of its versions, and the next page's token.

        Args:
            request_id: the request.
            size: page size; 0 for the default.
            token: page token; `""` for the first page.

        Raises:
            NotFoundError: if the request is unknown.
            InputError: if the token is invalid.
        """
        with self._store.reading() as db:
            _check_known(db, request_id)
            report = make_report(db, request_id)
        ids = [model.covered.model_id for model in report.models]
        if token and token not in ids:
            raise InputError(
                f"Expected the page token of an earlier answer, but got {token[:80]!r}."
            )
        # The token is a version, not an offset: one that joins between two calls moves no other.
        start = ids.index(token) + 1 if token else 0
        end = start + page_size(size)
        following = ids[end - 1] if end < len(ids) else ""
        return report, report.models[start:end], following

    def log_end(self) -> LogEnd:
        """Return the end of the audit log."""
        with self._store.reading() as db:
            last = entries_after(db, last_sequence(db) - 1, 1)
            keys = find_keys(db) if self._seal is not None else ()
        entry = last[-1] if last else None
        return LogEnd(
            0 if entry is None else entry.sequence,
            "" if entry is None else entry.hash,
            keys[-1].key_id if keys else "",
        )

    def attestation(self, request_id: str) -> Envelope:
        """Return the signed attestation of an ended campaign.

        Raises:
            NotFoundError: if the request is unknown.
            NotNowError: if the campaign has not ended, or there is no signing key.
            StoreError: if the log does not continue the signed one.
        """
        with self._store.reading() as db:
            _check_known(db, request_id)
        if self._seal is None:
            raise NotNowError(
                "Expected a coordinator that signs, but this one has no key. Give it one: "
                "signing.key in its configuration."
            )
        report = report_of(self._store, request_id)
        if not report.campaign.state.ended:
            raise NotNowError(
                f"Expected a campaign that has ended, but {request_id!r} is "
                f"{report.campaign.state}."
            )
        self._seal.follow()
        with self._store.reading() as db:
            entries = entries_about(db, request_id)
        for sequence, line in entries[: report.entries]:
            self._seal.check(sequence, line)
        return attest(report, self._seal)


def _check_known(db: Connection, request_id: str) -> None:
    try:
        find_request(db, request_id)
    except RequestError as error:
        raise NotFoundError(str(error)) from None
