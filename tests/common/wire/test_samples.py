"""Salted digests of samples: form, secrecy, and refusals."""

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import RequestError
from disinherit.common.wire.samples import SampleDigests, digest_samples, same_id, samples_of
from disinherit.v1 import unlearning_pb2 as pb

KEY = bytes(range(32))
SALT = "0123456789abcdef" * 2
DIGEST = "ab" * 32


@given(st.sets(st.text(min_size=1), min_size=1, max_size=5), st.binary(min_size=32, max_size=32))
def test_a_digest_is_an_hmac_of_salt_and_id(ids: set[str], key: bytes) -> None:
    found = digest_samples(key, SALT, ids)
    expected = {
        hmac.new(
            key,
            b"disinherit samples v1\x00" + bytes.fromhex(SALT) + same_id(id).encode(),
            hashlib.sha256,
        ).hexdigest()
        for id in ids
    }
    assert found == SampleDigests(SALT, tuple(sorted(expected)))


def test_no_two_salts_keys_or_ids_have_a_digest_in_common() -> None:
    made = [
        digest_samples(key, salt, ids).digests
        for key in (KEY, bytes(32))
        for salt in (SALT, "00" * 16)
        for ids in (["a"], ["b"])
    ]
    assert len(set(made)) == len(made)


def test_order_and_repetition_of_ids_do_not_show() -> None:
    assert digest_samples(KEY, SALT, ["a", "b", "a"]) == digest_samples(KEY, SALT, ["b", "a"])


@pytest.mark.parametrize("message", [pb.Root, pb.ModelTask])
def test_a_message_names_samples_or_none(message: type[pb.Root]) -> None:
    assert samples_of(message()) is None
    named = samples_of(message(samples=[DIGEST], sample_salt=SALT))
    assert named == SampleDigests(SALT, (DIGEST,))


@pytest.mark.parametrize(
    ("salt", "digests", "words"),
    [
        ("", (DIGEST,), "a salt of 32 hexadecimal digits, but got something of 0 char"),
        (SALT.upper(), (DIGEST,), "a salt of 32"),
        (SALT, ("patient-7",), "something of 9 characters"),
        (SALT, (DIGEST + "\n",), "something of 65 characters"),
        (SALT, (DIGEST, DIGEST), "every sample once"),
        (SALT, "patient-7", "a list as digests in samples, but got something else"),
        (SALT, ["patient-7", 7], r"text as digests\[1\] in samples"),
        (SALT, {DIGEST}, "digests in samples, but got a set"),
        (7, (DIGEST,), "text as salt in samples"),
    ],
)
def test_a_malformed_digest_is_refused_without_repeating_it(
    salt: Any, digests: Any, words: str
) -> None:
    with pytest.raises(RequestError, match=words) as refused:
        SampleDigests(salt, digests)
    assert "patient-7" not in str(refused.value)


@pytest.mark.parametrize(
    "spelling",
    ["René-03", "Rene\u0301-03", " René-03", "René-03\t", "\ufeffRené-03", "\u00a0René-03 "],
)
def test_all_spellings_of_an_id_have_one_digest(spelling: str) -> None:
    assert same_id(spelling) == "René-03"
    assert digest_samples(KEY, SALT, [spelling]) == digest_samples(KEY, SALT, ["René-03"])
