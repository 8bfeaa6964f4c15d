"""Whose Flower node has which key: a file that the coordinator's operator keeps.

::

    [owners]
    north = "north.pub"                         # OpenSSH public key, beside this file
    south = "ecdsa-sha2-nistp384 AAAAE2V..."    # or the key itself
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from disinherit.common.errors import InputError
from disinherit.common.parsing import load_toml
from disinherit.common.records import check_owner


def read_owner_keys(path: Path) -> dict[str, bytes]:
    """Read whose node has which key.

    Args:
        path: TOML with a table `owners`: owner -> OpenSSH public key, or a file with one.

    Returns:
        Owner -> public key, DER.

    Raises:
        InputError: if it is no such file, a key cannot be read, or two owners have the same.
    """
    try:
        table = load_toml(path.read_text())
    except OSError as error:
        raise InputError(f"Expected the owners' keys in {str(path)!r}: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"Expected TOML in {str(path)!r}, but: {error}.") from None
    owners = table.get("owners")
    if table.keys() != {"owners"} or not isinstance(owners, dict) or not owners:
        raise InputError(
            f"Expected one table in {str(path)!r}, [owners] with a key for each, but got "
            f"{', '.join(table) or 'none'}."
        )
    keys: dict[str, bytes] = {}
    for owner, value in owners.items():
        key = _read_key(path, check_owner(owner), value)
        taken = next((other for other, its in keys.items() if its == key), None)
        if taken is not None:
            raise InputError(
                f"Expected a key of its own for each owner in {str(path)!r}, but {taken!r} and "
                f"{owner!r} have the same."
            )
        keys[owner] = key
    return keys


def _read_key(path: Path, owner: str, value: object) -> bytes:
    text = value if isinstance(value, str) else ""
    try:
        if not text.startswith(("ecdsa-", "ssh-")):
            text = (path.parent / text).read_text()
        return canonical_key(text.encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"Expected the public key of owner {owner!r} in {str(path)!r}, as OpenSSH writes it or "
            f"the name of a file with it, but got {value!r}: {error}."
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
