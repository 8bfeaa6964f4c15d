"""Signatures over the audit log, which must continue what was signed before.

An attacker who can write the database but has no key could rewrite the log and let the coordinator
sign it.  So the number and the hash of the last signed entry are kept beside the key, and every
later entry is checked before anything is signed.  Signed checkpoints in the log prove the same to
readers with the public keys.  Owners keep signed heads and show them again, so a coordinator whose
database was restored from a backup detects the loss.
"""

import base64
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from sqlalchemy import Connection, bindparam, select

from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.dsse import Signer, TrustedKeys, enclose, signature_of
from disinherit.common.audit.export import (
    CHECKPOINT_TYPE,
    Header,
    checkpoint_bytes,
    line_hash,
    sign_header,
)
from disinherit.common.errors import LostHistoryError, StoreError
from disinherit.server.now import now_us
from disinherit.server.store.audit import append, last_sequence
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.database import Database
from disinherit.server.store.history import confirm_history, find_epoch
from disinherit.server.store.log_mark import Mark, read_mark, write_mark
from disinherit.server.store.queries import Query
from disinherit.server.store.signing import announce_key, find_keys
from disinherit.server.store.tables import AUDIT
from disinherit.v1.unlearning_pb2 import LogHead

_LOG = logging.getLogger(__name__)
_HEAD_TYPE = "application/vnd.disinherit.log-head+json"
_AT_A_TIME = 500
_ONE = Query(select(AUDIT.c.entry).where(AUDIT.c.sequence == bindparam("sequence")))
_NEXT = Query(
    select(AUDIT)
    .where(AUDIT.c.sequence > bindparam("sequence"))
    .order_by(AUDIT.c.sequence)
    .limit(_AT_A_TIME)
)
_HASH_BYTES = 32
_CHECKPOINT_ENTRIES = 1000
_CHECKPOINT_SECONDS = 3600.0


def accept_log(database: Database, path: Path | None, actor: str) -> None:
    """Continue with the present log on a person's word; it must still be one sound chain.

    Args:
        database: the coordinator's database.
        path: the file of the mark; `None` if nothing is signed.
        actor: the person.

    Raises:
        LostHistoryError: if the chain is broken.
    """
    chain = _Chain()
    with database.writing() as db:
        chain.extend(db)
        mark = None if path is None else read_mark(path)
        epoch = confirm_history(db, actor, 0 if mark is None else mark.epoch)
        chain.extend(db)
        if path is not None:
            write_mark(path, Mark(chain.count, chain.hash(chain.count), epoch))


class _Chain:
    """The hashes of the entries of a log that were checked so far."""

    def __init__(self) -> None:
        self._hashes = bytearray()

    @property
    def count(self) -> int:
        """The number of checked entries."""
        return len(self._hashes) // _HASH_BYTES

    def hash(self, sequence: int) -> str:
        """Return the hash of an entry; `""` for number 0."""
        end = _HASH_BYTES * sequence
        return self._hashes[end - _HASH_BYTES : end].hex() if sequence else ""

    def extend(self, db: Connection) -> None:
        """Check the entries after the last checked one, which must still be there.

        Raises:
            LostHistoryError: if the last checked entry changed, or a later one does not follow.
        """
        if end := self.count:
            line = _ONE.scalar(db, {"sequence": end})
            if line is None or line_hash(line) != self.hash(end):
                raise LostHistoryError(
                    f"entry {end} is {'gone' if line is None else 'another one'}"
                )
        while rows := _NEXT.all(db, {"sequence": self.count}):
            for row in rows:
                self._take(row)

    def _take(self, row: Any) -> None:
        sequence = self.count + 1
        try:
            entry = json.loads(row.entry)
            found = line_hash(row.entry)
            columns = (row.sequence, row.kind, row.request_id, row.model_id, row.hash)
            named = ("sequence", "kind", "request", "model", "hash")
            sound = (
                columns == tuple(entry[name] for name in named)
                and (sequence, self.hash(sequence - 1)) == (row.sequence, entry["previous"])
                and found == entry["hash"]
            )
        except (ValueError, TypeError, KeyError):
            sound = False
        if not sound:
            raise LostHistoryError(f"entry {sequence} does not follow the one before it")
        self._hashes += bytes.fromhex(found)


class SignedLog:
    """The log of a coordinator that signs; its methods may be called from any thread.

    Args:
        database: the coordinator's.
        signer: the key.
        path: the file of its mark.

    Raises:
        StoreError: if the database or the file cannot be used, or the key was revoked; every method
            may raise it, too.
    """

    def __init__(self, database: Database, signer: Signer, path: Path) -> None:
        self._database = database
        self._signer = signer
        self._path = path
        self._lock = threading.RLock()
        self._chain = _Chain()
        self._epoch = 0
        self._written: Mark | None = None
        self._checkpoint = (0, time.monotonic())
        # Callers that wait for the end of the log to be kept share one look at it.
        self._counting = threading.Lock()
        self._asked = self._served = 0
        self._end = Mark(0, "")
        self._since_us = 0
        self._announce()

    def follow(self) -> Mark:
        """Check the entries since the last call, and return the end of the log.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        with self._lock:
            mark = read_mark(self._path)
            with self._database.reading() as db:
                epoch = max(find_epoch(db), 0 if mark is None else mark.epoch)
                # A person may have accepted the present log since.
                chain = self._chain if epoch <= self._epoch else _Chain()
                chain.extend(db)
                self._chain, self._epoch = chain, max(epoch, self._epoch)
            end = self._chain.count
            if mark is not None and mark.entries > end:
                raise LostHistoryError(
                    f"entry {mark.entries} was signed, and the log ends with entry {end}"
                )
            if mark is not None and self._chain.hash(mark.entries) != mark.head:
                raise LostHistoryError(f"entry {mark.entries} is not the one that was signed")
            return Mark(end, self._chain.hash(end), epoch)

    def sign(self, header: Header) -> Header:
        """Return the header of an export, signed after a check of the log.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        self._keep_end()
        if not header.request_id and self._chain.hash(header.entries) != header.head:
            raise LostHistoryError(f"entry {header.entries} has another hash than a moment ago")
        return sign_header(header, self._signer, max(now_us(), self._since_us))

    def envelope(self, payload_type: str, payload: bytes) -> Envelope:
        """Return a payload with its signature, made after a check of the log.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        self._keep_end()
        return self._signer.envelope(payload_type, payload)

    def check(self, sequence: int, line: bytes) -> None:
        """Check that an entry is unchanged since `follow` checked it.

        Args:
            sequence: its number.
            line: its complete line.

        Raises:
            LostHistoryError: if it changed or was not checked.
        """
        chain = self._chain  # hashes are only added to it
        if not 0 < sequence <= chain.count or chain.hash(sequence) != line_hash(line):
            raise LostHistoryError(f"entry {sequence} is not what it was")

    def watch(self) -> None:
        """Update the mark, and sign a checkpoint in the log if it has grown enough.

        If the mark cannot be written, as on a full disk, nothing is signed; the coordinator still
        serves.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        with self._lock:
            mark = self.follow()
            try:
                self._keep(mark)
            except StoreError as error:
                _LOG.error("%s", error)
                return
            last, then = self._checkpoint
            late = time.monotonic() - then > _CHECKPOINT_SECONDS
            if mark.entries - last < (1 if late else _CHECKPOINT_ENTRIES):
                return
            with self._database.writing() as db:
                if last_sequence(db) == mark.entries:
                    append(db, AuditKind.CHECKPOINT, parameters=self._signed(mark))
                    self._checkpoint = (mark.entries + 1, time.monotonic())

    def head(self) -> LogHead:
        """Return the signed head of the log, for owners to keep.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        mark = self._keep_end()
        head = LogHead(entries=mark.entries, hash=mark.head, epoch=mark.epoch)
        signature = self._signer.sign(_HEAD_TYPE, _head_bytes(head))
        head.key_id, head.signature = signature.keyid, bytes.fromhex(signature.signature)
        return head

    def find_missing(self, owner: str, head: LogHead) -> str:
        """Return what the log has lost since an owner got a head; `""` if nothing.

        A head that this coordinator did not sign, or signed in an earlier epoch, is ignored.

        Args:
            owner: the owner that shows the head.
            head: the head.
        """
        with self._lock:
            if self._has(head, self._epoch):
                return ""  # each answer of a pass shows the head that the pass began with
            mark = self.follow()
            if not head.signature or head.epoch < mark.epoch or self._has(head, mark.epoch):
                return ""
        if not self._is_own(head):
            return ""
        return f"owner {owner} was shown entry {head.entries} with hash {head.hash}"

    def _has(self, head: LogHead, epoch: int) -> bool:
        """Return whether the checked entries of an epoch include the last one of a head."""
        known = head.epoch == epoch and 0 < head.entries <= self._chain.count
        return known and self._chain.hash(head.entries) == head.hash

    def _is_own(self, head: LogHead) -> bool:
        with self._database.reading() as db:
            pems = [self._signer.public_pem, *(key.public_pem for key in find_keys(db))]
        trusted = TrustedKeys.from_pem(b"".join(pems))
        signature = signature_of(head.key_id, head.signature)
        fault = trusted.find_fault(enclose(_HEAD_TYPE, _head_bytes(head), [signature]))
        if fault is not None:
            _LOG.warning("An owner showed a head of the log that this coordinator did not sign")
        return fault is None

    def _keep_end(self) -> Mark:
        """Check the log as it is now, keep where it ends before anything is signed, and return it.

        Raises:
            LostHistoryError: if the log does not continue what was signed.
        """
        with self._counting:
            self._asked += 1
            mine = self._asked
        with self._lock:
            if self._served < mine:  # nobody has looked since this call began
                all_so_far = self._asked
                self._announce()
                mark = self.follow()
                self._keep(mark)
                self._served, self._end = all_so_far, mark
            return self._end

    def _announce(self) -> None:
        with self._database.reading() as db:
            keys = find_keys(db)
        if not keys or keys[-1].key_id != self._signer.key_id or keys[-1].revoked_us:
            with self._database.writing() as db:
                announce_key(db, self._signer)
                keys = find_keys(db)
        # What is signed is dated no earlier than the key.
        self._since_us = keys[-1].since_us

    def _signed(self, mark: Mark) -> dict[str, str | int]:
        data = checkpoint_bytes(mark.entries, mark.head)
        signature = self._signer.sign(CHECKPOINT_TYPE, data)
        return {
            "entries": mark.entries,
            "head": mark.head,
            "key_id": signature.keyid,
            "signature": base64.b64encode(bytes.fromhex(signature.signature)).decode(),
        }

    def _keep(self, mark: Mark) -> None:
        if mark != self._written:
            write_mark(self._path, mark)
            self._written = mark


def _head_bytes(head: LogHead) -> bytes:
    return canonical({"entries": head.entries, "hash": head.hash, "epoch": head.epoch})
