"""Public keys of owners' Flower nodes, in a file of the coordinator's operator.

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
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.limits import LOG_LINE
from disinherit.common.settings import Table, located, read
from disinherit.common.text import one_line


class _KeysFile(Table):
    owners: Annotated[
        dict[str, str], Meta(min_length=1, description="a table with a key for each owner")
    ]


def read_owner_keys(path: Path | str) -> dict[str, bytes]:
    """Read the public keys of owners' nodes.

    Args:
        path: TOML with a table `owners`: owner -> OpenSSH public key, or a file with one.

    Returns:
        Owner -> public key, DER.

    Raises:
        InputError: if the file is malformed, a key cannot be read, or two owners share a key.
    """
    path = Path(path)
    owners = read(_KeysFile, path, "the owners' keys in").owners
    keys: dict[str, bytes] = {}
    for owner, value in owners.items():
        with located(f"owners in {str(path)!r}"):
            check_owner(owner)
        key = _read_key(path, owner, value)
        taken = next((other for other, its in keys.items() if its == key), None)
        if taken is not None:
            raise InputError(
                f"Expected a different key for each owner in {str(path)!r}, but {taken!r} and "
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
        # A text with several lines may be a private key, so the error omits it.
        got = "something else" if "\n" in value else one_line(repr(value), LOG_LINE.most)
        raise InputError(
            f"Expected the public key of owner {owner!r} in {str(path)!r}, as OpenSSH writes it or "
            f"the name of a file with it, but got {got}: {reason}."
        ) from None


def canonical_key(key: bytes) -> bytes:
    """Return a public key in OpenSSH's or Flower's format as DER; `b""` for an empty one.

    Raises:
        ValueError: if it has another format.
    """
    if not key:
        return b""
    public = load_pem_public_key(key) if b"-----BEGIN" in key else load_ssh_public_key(key)
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
