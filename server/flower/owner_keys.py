"""Keys of owners' Flower nodes: a file that the coordinator's operator keeps.

::

    [owners]
    north = "north.pub"                         # OpenSSH public key, beside this file
    south = "ecdsa-sha2-nistp384 AAAAE2V..."    # or the key itself
"""

from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)
from msgspec import Meta

from disinherit.common.errors import InputError
from disinherit.common.graph.records import check_owner
from disinherit.common.limits import LOG_LINE
from disinherit.common.settings import Table, located, read
from disinherit.common.text import one_line


class _File(Table):
    owners: Annotated[
        dict[str, str], Meta(min_length=1, description="a table with a key for each owner")
    ]


def read_owner_keys(path: Path) -> dict[str, bytes]:
    """Read whose node has which key.

    Args:
        path: TOML with a table `owners`: owner -> OpenSSH public key, or a file with one.

    Returns:
        Owner -> public key, DER.

    Raises:
        InputError: if it is no such file, a key cannot be read, or two owners have the same.
    """
    owners = read(_File, path, "the owners' keys in").owners
    keys: dict[str, bytes] = {}
    for owner, value in owners.items():
        with located(f"owners in {str(path)!r}"):
            check_owner(owner)
        key = _read_key(path, owner, value)
        taken = next((other for other, its in keys.items() if its == key), None)
        if taken is not None:
            raise InputError(
                f"Expected a key of its own for each owner in {str(path)!r}, but {taken!r} and "
                f"{owner!r} have the same."
            )
        keys[owner] = key
    return keys


def _read_key(path: Path, owner: str, value: str) -> bytes:
    text = value
    try:
        if not text.startswith(("ecdsa-", "ssh-")):
            text = (path.parent / text).read_text()
        return canonical_key(text.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        # What has lines may be a private key, and is in no error.
        got = "something else" if "\n" in value else one_line(repr(value), LOG_LINE.most)
        raise InputError(
            f"Expected the public key of owner {owner!r} in {str(path)!r}, as OpenSSH writes it or "
            f"the name of a file with it, but got {got}: {reason}."
        ) from None


def canonical_key(key: bytes) -> bytes:
    """Return a public key as DER, whether it comes from OpenSSH or from Flower; `b""` for none.

    Raises:
        ValueError: if it is neither.
    """
    if not key:
        return b""
    public = load_pem_public_key(key) if b"-----BEGIN" in key else load_ssh_public_key(key)
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
