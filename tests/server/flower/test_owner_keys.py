"""The file of owners' keys: both ways to give a key, and errors."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from disinherit.common.errors import InputError
from disinherit.server.flower.owner_keys import canonical_key, read_owner_keys


def make_key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP384R1()).public_key()


def openssh(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """As Flower keeps it."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_keys_are_given_themselves_or_by_file(tmp_path: Path) -> None:
    north, south = make_key(), make_key()
    (tmp_path / "north.pub").write_text(f"{openssh(north)} north@example\n")
    path = tmp_path / "owners.toml"
    path.write_text(f'[owners]\nnorth = "north.pub"\nsouth = "{openssh(south)}"\n')
    keys = read_owner_keys(path)
    assert keys == read_owner_keys(str(path))
    assert keys == {"north": canonical_key(pem(north)), "south": canonical_key(pem(south))}


KEY = openssh(make_key())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"the key owners .* but got none"),
        ("[owners]\n", r"a key for each owner as owners"),
        (f'[owners]\nnorth = "{KEY}"\n[other]\n', "one of owners .* but got other"),
        ("[owners\n", "Expected TOML"),
        ('[owners]\nnorth = "gone.pub"\n', "owner 'north'.*'gone.pub'.*No such file"),
        ('[owners]\nnorth = "owners.toml"\n', "owner 'north'"),
        ("[owners]\nnorth = 5\n", r"owners\.north .* but got 5"),
        ('[owners]\nnorth = "ssh-nothing AAAA"\n', "owner 'north'"),
        (f'[owners]\n"../north" = "{KEY}"\n', "owner name"),
        (f'[owners]\nnorth = "{KEY}"\nsouth = "{KEY}"\n', "'north' and 'south' have the same"),
    ],
)
def test_a_malformed_key_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "owners.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_owner_keys(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml"):
        read_owner_keys(tmp_path / "none.toml")
