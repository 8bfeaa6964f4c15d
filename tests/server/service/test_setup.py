"""Who a caller is, and how the coordinator is set up."""

import hashlib

from disinherit.server.store.schema import REVISIONS
from disinherit.v1 import coordinator_pb2 as pb
from tests.support.service import TOKENS, Running, secret


def test_every_caller_learns_who_it_is(running: Running) -> None:
    for name, role in TOKENS.items():
        found = running.client(name).WhoAmI(pb.WhoAmIRequest())
        kind, _, owner = role.partition(":")
        assert (found.name, found.role, found.owner) == (name, kind, owner)
        assert (found.expires_us, found.approval) == (0, True)


def test_the_expiry_of_a_token_is_said(running: Running) -> None:
    path = running.world.root / "tokens.toml"
    path.write_text(path.read_text() + "expires = 2100-01-01T00:00:00Z\n")
    found = running.client("ben").WhoAmI(pb.WhoAmIRequest())
    assert found.expires_us == 4_102_444_800 * 1_000_000
    assert running.client("anna").WhoAmI(pb.WhoAmIRequest()).expires_us == 0


def test_the_setup_has_tokens_without_secrets(running: Running) -> None:
    found = running.client("operator").GetSystem(pb.GetSystemRequest())
    assert found.database in ("sqlite", "postgresql")
    assert found.revision == REVISIONS[-1]
    assert not found.tls
    assert found.approval
    assert (found.serves_agents, found.agents_online) == (False, 0)
    assert found.metrics_url == ""
    keys = running.client("viewer").GetSigningKeys(pb.GetSigningKeysRequest()).keys
    assert found.key_id == keys[-1].key_id
    assert {one.name: one.role for one in found.tokens} == TOKENS
    written = found.SerializeToString()
    for name in TOKENS:
        assert secret(name).encode() not in written
        assert hashlib.sha256(secret(name).encode()).hexdigest().encode() not in written
