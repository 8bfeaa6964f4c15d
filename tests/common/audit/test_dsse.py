"""Signed envelopes: the standard is followed, and no false signature is accepted."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.audit.dsse import (
    Signer,
    TrustedKeys,
    enclose,
    envelope_line,
    read_envelope,
    signature_of,
)
from disinherit.common.errors import AuditError

OLD, NEW, OTHER = (Signer(Ed25519PrivateKey.from_private_bytes(bytes([i] * 32))) for i in range(3))
BOTH = TrustedKeys.from_pem(b"the coordinator's keys\n" + OLD.public_pem + NEW.public_pem)


@given(st.text(max_size=20), st.binary(max_size=40), st.sampled_from([OLD, NEW]))
def test_an_envelope_is_verified_after_a_json_round_trip(
    kind: str, payload: bytes, signer: Signer
) -> None:
    data = envelope_line(signer.envelope(kind, payload))
    got = read_envelope(data)
    assert (got.payload_type, got.payload) == (kind, payload)
    assert BOTH.find_fault(got) is None
    values = json.loads(data)
    assert set(values) == {"payload", "payloadType", "signatures"}
    assert base64.b64decode(values["payload"]) == payload
    # Without any of our code in between.
    key = load_pem_public_key(signer.public_pem)
    signed = f"DSSEv1 {len(kind.encode())} {kind} {len(payload)} ".encode() + payload
    key.verify(base64.b64decode(values["signatures"][0]["sig"]), signed)  # type: ignore[union-attr,call-arg]


def test_the_id_of_a_key_is_the_digest_of_its_public_half() -> None:
    der = load_pem_public_key(OLD.public_pem).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert OLD.key_id == hashlib.sha256(der).hexdigest()


def test_a_signature_is_valid_for_its_type_payload_and_key_only() -> None:
    (signature,) = OLD.envelope("a", b"b").signatures.values()
    value = bytes.fromhex(signature.signature)
    for kind, payload, signatures, words in (
        ("a", b"c", [signature], "made none like this"),
        ("c", b"b", [signature], "made none like this"),
        ("a", b"b", [signature_of(OLD.key_id, bytes(64))], "made none like this"),
        ("a", b"b", [signature_of(OLD.key_id, b"")], "made none like this"),
        ("a", b"b", [signature_of(NEW.key_id, value)], "made none like this"),
        ("a", b"b", [OTHER.sign("a", b"b")], OTHER.key_id),
        ("a", b"b", [], "there is none"),
    ):
        fault = BOTH.find_fault(enclose(kind, payload, signatures))
        assert fault is not None
        assert words in fault
    # The boundary between type and payload is signed too.
    assert enclose("a b", b"c", []).pae() != enclose("a", b"b 1 c", []).pae()
    several = [OTHER.sign("a", b"b"), signature]
    assert BOTH.find_fault(enclose("a", b"b", several)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"payload":1,"payloadType":"a","signatures":[]}',
        b'{"payload":"YQ==","payloadType":1,"signatures":[]}',
        b'{"payload":"YQ==","payloadType":"a","signatures":7}',
        b'{"payload":"YQ==","payloadType":"a","signatures":[{"keyid":"x","sig":"*"}]}',
        b'{"payload":"YQ==","payloadType":"a","signatures":[{"keyid":"x","sig":1}]}',
        b'{"payload":"YQ==","payloadType":"a","signatures":[{"sig":"YQ=="}]}',
        b'{"payload":"YQ==","payloadType":"a","signatures":[{"keyid":[],"sig":"YQ=="}]}',
        b'{"payload":"YQ==","payloadType":"a","signatures":[{"keyid":1,"sig":"YQ=="}]}',
        b'{"payload":"YQ==","payloadType":"\\ud800","signatures":[]}',
    ],
)
def test_malformed_envelopes_are_refused(data: bytes) -> None:
    with pytest.raises(AuditError, match="Expected"):
        read_envelope(data)


def test_malformed_public_keys_are_refused() -> None:
    with pytest.raises(AuditError, match="audit keys"):
        TrustedKeys.from_pem(b"nothing")
    with pytest.raises(AuditError, match="PEM"):
        TrustedKeys.from_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    other = generate_private_key(65537, 1024).public_key()
    with pytest.raises(AuditError, match="Ed25519"):
        TrustedKeys.from_pem(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_an_envelope_has_one_form() -> None:
    envelope = enclose("a", b"b", [signature_of("k", b"s")])
    expected = b'{"payload":"Yg==","payloadType":"a","signatures":[{"keyid":"k","sig":"cw=="}]}'
    assert envelope_line(envelope) == expected


def test_unsigned_fields_are_dropped() -> None:
    """Readers of an envelope ignore unknown keys, as in the standard."""
    values = json.loads(envelope_line(OLD.envelope("a", b"\xfb\xff")))
    values["by"] = values["signatures"][0]["by"] = "mallory"
    values["payload"] = base64.urlsafe_b64encode(b"\xfb\xff").decode()
    read = read_envelope(json.dumps(values).encode())
    assert BOTH.find_fault(read) is None
    assert envelope_line(read) == envelope_line(OLD.envelope("a", b"\xfb\xff"))


def test_a_key_signs_an_envelope_once() -> None:
    values = json.loads(envelope_line(OLD.envelope("a", b"b")))
    values["signatures"] *= 2
    with pytest.raises(AuditError, match="DSSE envelope"):
        read_envelope(json.dumps(values).encode())
