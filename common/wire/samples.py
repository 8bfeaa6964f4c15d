"""Training samples named by salted digests, so that their ids do not leave their owner.

::

    digest = HMAC-SHA256(key, "disinherit samples v1" ‖ 0x00 ‖ salt ‖ NFC(id))

An id has one normal form: accents composed, and without blanks around it, which spreadsheets and
file systems may add.  The key never leaves the owner, so others cannot test ids, even if there are
few.  The salt (16 bytes) differs for each request and travels with it, so two requests do not
reveal whether they name the same sample.
"""

import hmac
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from disinherit.common.errors import RequestError
from disinherit.common.fields import settle
from disinherit.common.graph.identifiers import check_id
from disinherit.common.settings import Secret, Table, check
from disinherit.common.text import load_json
from disinherit.v1.unlearning_pb2 import ModelTask, Root

KEY_BYTES = 32
SALT_BYTES = 16

_SHOWN = 8
"""Digits of a salt in a `repr`."""

_CONTEXT = b"disinherit samples v1\0"
_SALT = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SampleDigests:
    """Samples as named in a request.

    Attributes:
        salt: 32 lower-case hexadecimal digits.
        digests: one per sample, each 64 lower-case hexadecimal digits, all different.
        ignore_unknown: whether digests that match no training sample of a model are ignored.

    Raises:
        RequestError: if the values have another form, such as the ids themselves.
    """

    salt: Secret
    digests: tuple[Secret, ...]  # never quoted: they may be ids that should not have come here
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        """Check all of it."""
        settle(self, "samples", RequestError)
        check_salt(self.salt)
        for digest in self.digests:
            if not _DIGEST.fullmatch(digest):
                # Not quoted: it may be an id that should not have come here.
                raise RequestError(
                    "Expected samples as salted digests of 64 hexadecimal digits each, but got "
                    f"something of {len(digest)} characters. Make them where the samples' ids are "
                    "known, with `disinherit samples digest`."
                )
        if len(set(self.digests)) != len(self.digests):
            raise RequestError("Expected the digest of every sample once, but got one twice.")

    def __repr__(self) -> str:
        return f"SampleDigests({len(self.digests)} samples, salt {self.salt[:_SHOWN]!r}...)"


def samples_of(message: Root | ModelTask) -> SampleDigests | None:
    """Return the samples in a message; `None` without any.

    Raises:
        RequestError: if they are no salted digests.
    """
    if not message.samples:
        return None
    return SampleDigests(message.sample_salt, tuple(message.samples), message.ignore_unknown)


class _Named(Table):
    models: Annotated[tuple[str, ...], Meta(min_length=1)]
    salt: Secret
    digests: Annotated[tuple[Secret, ...], Meta(min_length=1)]  # a file of ids may name people


def read_named(text: str, place: str) -> dict[str, SampleDigests]:
    """Return model -> sample digests, from the content of a file of `disinherit samples digest`.

    Args:
        text: the content, JSON.
        place: where it comes from, for errors.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        content = load_json(text)
    except ValueError:
        content = None
    found = check(_Named, content, f"{place}, as `disinherit samples digest` writes it")
    try:
        named = SampleDigests(found.salt, found.digests)
    except RequestError as error:
        raise RequestError(f"In {place}: {error}") from error
    return {check_id(model): named for model in found.models}


def check_salt(salt: str) -> str:
    """Return a salt after checking it.

    Raises:
        RequestError: if it is malformed.
    """
    if not isinstance(salt, str):
        raise RequestError("Expected a salt of 32 hexadecimal digits, but got something else.")
    if not _SALT.fullmatch(salt):
        # Not quoted: it may be an id that should not have come here.
        raise RequestError(
            f"Expected a salt of 32 hexadecimal digits, but got something of {len(salt)} "
            "characters."
        )
    return salt


def same_id(sample: str) -> str:
    """Return the normal form of a sample's id: no blanks around it, accents composed (NFC).

    Example:
        >>> same_id("Rene\u0301-03 ")
        'René-03'
    """
    return unicodedata.normalize("NFC", sample.strip().strip("\ufeff").strip())


def digest_sample(key: bytes, salt: str, sample: str) -> str:
    """Return the salted digest of a sample's id, independent of its spelling.

    Args:
        key: key of the owner.
        salt: salt of the request.
        sample: id of the sample.

    Example:
        >>> digest_sample(bytes(32), "00" * 16, "patient-7")[:8]
        '129bb354'
    """
    return hmac.digest(
        key, _CONTEXT + bytes.fromhex(salt) + same_id(sample).encode(), "sha256"
    ).hex()


def digest_samples(key: bytes, salt: str, samples: Iterable[str]) -> SampleDigests:
    """Return the salted digests of samples, in an order that does not reveal theirs.

    Args:
        key: key of the owner.
        salt: salt of the request, 32 lower-case hexadecimal digits.
        samples: ids of the samples; duplicates count once.

    Raises:
        RequestError: if the salt is malformed.
    """
    check_salt(salt)
    return SampleDigests(
        salt, tuple(sorted({digest_sample(key, salt, sample) for sample in samples}))
    )
