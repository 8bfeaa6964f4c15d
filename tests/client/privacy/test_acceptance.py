"""The acceptance policy: values, the stricter of two, and what is refused."""

import pytest

from disinherit.client.privacy.acceptance import (
    ANYBODY,
    AcceptancePolicy,
    acceptance_of,
    read_acceptance,
)
from disinherit.common.errors import InputError


@pytest.mark.parametrize(
    ("policy", "sender", "expected"),
    [
        (ANYBODY, "ben", ""),
        (ANYBODY, "", ""),
        (AcceptancePolicy(False), "ben", "takes no changes of roots of others"),
        (AcceptancePolicy(False), "", "is not its own"),
        (AcceptancePolicy(refuse_deltas_of=("ben",)), "ben", "takes no changes of ben"),
        (AcceptancePolicy(refuse_deltas_of=("ben",)), "cleo", ""),
        (AcceptancePolicy(refuse_deltas_of=("ben",)), "", "does not say whose 'r' is"),
    ],
)
def test_whose_changes_are_refused(policy: AcceptancePolicy, sender: str, expected: str) -> None:
    found = policy.refusal("r", sender)
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"accept_deltas": "no"}, "true or false"),
        ({"refuse_deltas_of": "ben"}, "a list"),
        ({"refuse_deltas_of": ["b/n"]}, "b/n"),
        ({"deltas": False}, "Expected one of accept_deltas, refuse_deltas_of"),
    ],
)
def test_what_is_wrong_is_named(values: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_acceptance(values, "agent.toml")
    assert "agent.toml" in str(caught.value)


def test_an_owner_without_a_policy_takes_changes_of_anybody() -> None:
    assert acceptance_of(object()) is ANYBODY
