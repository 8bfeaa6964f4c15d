"""Commands for those who look after a coordinator: init, config, token, status, owner, doctor."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from disinherit.cli.connection import Connection
from disinherit.cli.doctor import Reading
from disinherit.cli.main import run
from disinherit.client.agent.config import read_config
from disinherit.common.errors import InputError
from disinherit.server.service.principals import Role, TokenBook
from disinherit.server.service.settings import read_settings
from tests.support.agent import wait_for
from tests.support.command_line import Capture, as_json, error_line
from tests.support.service import Running, secret, speak_as

FIRST = ("serve", "tokens")
"""The first configurations of a coordinator."""


def test_first_configurations_are_valid_and_never_overwritten(
    tmp_path: Path, capsys: Capture
) -> None:
    assert run(["init", "coordinator", "--folder", str(tmp_path / "new")]) == 0
    assert "disinherit token new" in capsys.readouterr().out
    settings = read_settings(tmp_path / "new" / "serve.toml", {}, {})
    assert settings.approval
    assert TokenBook.read(settings.tokens).tokens == ()
    assert run(["init", "agent", "--folder", str(tmp_path), "--owner", "anna"]) == 0
    assert read_config(tmp_path / "agent.toml").owner == "anna"
    capsys.readouterr()
    made = as_json(capsys, "init", "coordinator", "--folder", str(tmp_path / "other"))
    assert made == {"written": [str(tmp_path / "other" / f"{name}.toml") for name in FIRST]}
    (tmp_path / "agent.toml").write_text("mine")
    assert run(["init", "agent", "--folder", str(tmp_path)]) == 2
    assert "agent.toml exists" in error_line(capsys)
    assert (tmp_path / "agent.toml").read_text() == "mine"


def uncommented(path: Path) -> str:
    """A first configuration with every setting that it shows."""
    lines = [line.removeprefix("# ") for line in path.read_text().splitlines()]
    return "\n".join(line for line in lines if line.startswith("[") or " = " in line)


def test_every_setting_that_a_first_configuration_shows_is_known(
    tmp_path: Path, capsys: Capture
) -> None:
    for what in ("coordinator", "agent"):
        assert run(["init", what, "--folder", str(tmp_path)]) == 0
    (tmp_path / "all.toml").write_text(uncommented(tmp_path / "serve.toml"))
    settings = read_settings(tmp_path / "all.toml", {}, {})
    assert settings.agents is not None
    assert settings.tls is not None
    assert settings.ui is not None
    assert settings.metrics is not None
    assert len(settings.webhooks) == 1
    (tmp_path / "all.toml").write_text(uncommented(tmp_path / "agent.toml"))
    assert read_config(tmp_path / "all.toml").hours is not None
    capsys.readouterr()


def test_a_configuration_is_checked_with_the_files_that_it_names(
    tmp_path: Path, capsys: Capture
) -> None:
    for what in ("coordinator", "agent"):
        assert run(["init", what, "--folder", str(tmp_path)]) == 0
    serve, agent, tokens = (tmp_path / f"{name}.toml" for name in ("serve", "agent", "tokens"))
    capsys.readouterr()
    assert run(["config", "check", str(serve), str(tokens)]) == 0
    out = capsys.readouterr().out
    assert "fine, a coordinator" in out
    assert "fine, a token file" in out
    assert run(["config", "check", str(agent)]) == 2
    assert "ca names" in error_line(capsys)
    (tmp_path / "ca.pem").touch()
    assert run(["config", "check", str(agent)]) == 0
    tokens.unlink()
    capsys.readouterr()
    for text, said in (
        ('database = "c.db"\ntokens = "tokens.toml"', "tokens names"),
        ("listen = 3", "listen"),
        ("colour = 3", "disinherit init"),
        ("listen =", "TOML"),
    ):
        serve.write_text(text)
        assert run(["config", "check", str(serve)]) == 2
        assert said in error_line(capsys)
    serve.write_text('database = "c.db"\ntokens = "t"\n[ui]\ncertificate = "a"\nkey = "b"\n')
    assert run(["config", "check", str(serve)]) == 2
    said = capsys.readouterr().err
    assert [f"{key} names" in said for key in ("ui.certificate", "ui.key")] == [True, True]
    assert run(["config", "check", str(tmp_path / "gone.toml")]) == 2
    assert "gone.toml" in error_line(capsys)
    good, bad = as_json(capsys, "config", "check", str(agent), str(serve), code=2)
    assert good == {"file": str(agent), "kind": "an agent", "wrong": []}
    assert (bad["kind"], len(bad["wrong"])) == ("a coordinator", 3)


def test_tokens_are_made_listed_and_revoked(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("# ours\n")
    at = ("--tokens", str(path))
    assert run(["token", "new", "alice", "--role", "operator", *at]) == 0
    printed = capsys.readouterr()
    token = printed.out.strip()
    assert TokenBook.read(path).principal(token).role is Role.OPERATOR
    assert token not in path.read_text()
    assert "once" in printed.err
    made = as_json(capsys, "token", "new", "c7", "--role", "owner:c7", "--expires", "90d", *at)
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert 89 <= left.days <= 90
    assert run(["token", "new", "alice", "--role", "viewer", *at]) == 2
    assert "'alice'" in error_line(capsys)
    assert run(["token", "new", "bob", "--role", "king", *at]) == 2
    assert "'king'" in error_line(capsys)
    path.write_text(path.read_text() + "# about the last\n")
    assert run(["token", "list", *at]) == 0
    out = capsys.readouterr().out
    assert "✓ valid" in out
    assert "in 89 d" in out
    assert run(["token", "list", "-q", *at]) == 0
    assert capsys.readouterr().out == "alice\nc7\n"
    assert run(["token", "revoke", "alise", *at]) == 5
    assert "Did you mean 'alice'?" in error_line(capsys)
    assert as_json(capsys, "token", "revoke", "alice", *at) == {"name": "alice", "revoked": True}
    assert [one["name"] for one in as_json(capsys, "token", "list", *at)] == ["c7"]
    assert path.read_text().startswith("# ours\n")
    assert path.read_text().endswith("# about the last\n")


def test_tokens_that_a_person_wrote_otherwise_are_left_to_that_person(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "tokens.toml"
    text = f'token = [{{ name = "a", role = "viewer", sha256 = "{"0" * 64}" }}]\n'
    path.write_text(text)
    for command in (["revoke", "a"], ["new", "b", "--role", "viewer"]):
        assert run(["token", *command, "--tokens", str(path)]) == 2
        error_line(capsys)
        assert path.read_text() == text
    assert tomllib.loads(text)["token"]


@pytest.mark.parametrize("server", ["127.0.0.1:1", "fleet.org:1"])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("cert", "got the certificate alone. Give the private key"),
        ("key", "got the private key alone. Give the certificate"),
    ],
)
def test_half_of_a_certificate_and_its_key_is_refused(
    option: str, words: str, server: str, tmp_path: Path
) -> None:
    (half := tmp_path / "half.pem").touch()
    cert, key = (half, None) if option == "cert" else (None, half)
    with pytest.raises(InputError, match=words):
        Connection(server=server, cert=cert, key=key).open_channel()


@pytest.fixture
def running(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    speak_as("operator", running, monkeypatch)
    wait_for(Connection(server=running.address).health)  # its first check of the store
    return running


def test_status_says_who_i_am_and_what_needs_me(running: Running, capsys: Capture) -> None:
    submit = ["request", "submit", "--forget", "cat@r1", "--id", "q"]
    assert run(submit) == 0
    capsys.readouterr()
    found = as_json(capsys, "status")
    assert (found["name"], found["role"], found["serving"]) == ("operator", "operator", True)
    assert found["needs_you"] == []
    assert found["under_way"] == {"q": "awaiting_approval"}
    assert found["owners"] == 3
    approver = ("--token", secret("approver"))
    assert as_json(capsys, "status", *approver)["needs_you"] == ["q"]
    assert run(["status", *approver]) == 0
    out = capsys.readouterr().out
    assert "needs you" in out
    assert "disinherit request approve q" in out
    assert "✓ serving" in out
    assert run(["status", "--token", secret("anna")]) == 0  # an owner, who may list nothing
    assert "owner anna" in capsys.readouterr().out
    assert run(["status", "--server", "127.0.0.1:1"]) == 3
    assert "127.0.0.1:1" in error_line(capsys)


def test_owners_are_listed_and_shown(running: Running, capsys: Capture) -> None:
    owners = as_json(capsys, "owner", "list")
    assert [one["owner"] for one in owners] == ["anna", "ben", "cleo"]
    assert run(["owner", "list", "-q"]) == 0
    assert capsys.readouterr().out == "anna\nben\ncleo\n"
    assert run(["owner", "list", "-o", "wide"]) == 0
    assert "access" in capsys.readouterr().out
    assert "r1" in as_json(capsys, "owner", "show", "anna")["model_ids"]
    assert run(["owner", "show", "anna"]) == 0
    assert "waiting" in capsys.readouterr().out
    assert run(["owner", "show", "nobody"]) == 5
    assert "'nobody'" in error_line(capsys)


def test_a_model_is_shown_with_its_family(running: Running, capsys: Capture) -> None:
    shown = as_json(capsys, "model", "show", "r4")
    graph = running.world.store.graph()
    assert shown["parents"] == {edge.parent: edge.weight for edge in graph.parents("r4")}
    assert run(["model", "show", "r4"]) == 0
    assert "derived from" in capsys.readouterr().out
    family = as_json(capsys, "model", "lineage", "r4")
    assert "r1" in family["ancestors"]
    below = [edge.child for edge in graph.children("r4")]
    assert family["descendants"][: len(below)] == below
    assert run(["model", "lineage", "r4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("↓") + 1].startswith("r4 (")
    assert run(["model", "show", "r44"]) == 2
    assert "Did you mean 'r4'?" in error_line(capsys)


def test_coverage_and_attestation_belong_to_requests(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["request", "submit", "--forget", "cat@r1", "--id", "q"]) == 0
    capsys.readouterr()
    covered = as_json(capsys, "request", "coverage", "q", code=1)
    assert as_json(capsys, "coverage", "q", code=1) == covered
    assert run(["request", "attest", "q", "--out", str(tmp_path / "a.json")]) == 2
    assert "awaiting_approval" in error_line(capsys)


def test_doctor_says_what_is_lacking(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("disinherit.cli.doctor._ports", lambda: iter(()))
    found = {one["what"]: one for one in as_json(capsys, "doctor")}
    assert found["coordinator"]["found"] == f"{running.address}: serving"
    assert found["extra server"]["state"] == "ok"
    bad = Reading("disk", "problem", "full", "make room")
    monkeypatch.setattr("disinherit.cli.doctor._machine", lambda _: iter([bad]))
    assert run(["doctor", "--server", "127.0.0.1:1"]) == 1
    out = capsys.readouterr().out
    assert "✕ problem" in out
    assert "make room" in out
