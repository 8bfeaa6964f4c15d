"""The audit log by the command line: exported from a service, verified offline."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from disinherit.cli.main import run
from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.chain import AuditEvent
from disinherit.common.audit.dsse import Signer, enclose, envelope_line, read_envelope
from disinherit.common.audit.export import Header, header_line
from tests.support.audit_cases import chain, export
from tests.support.command_line import Capture, as_json, error_line
from tests.support.service import Running, secret, serving, speak_as

ENTRIES = chain([AuditEvent("sent", time, "coordinator") for time in range(5)])


@pytest.fixture
def running(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    speak_as("approver", running, monkeypatch)
    return running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(export(ENTRIES)))
    return path


def test_a_campaign_is_exported_and_verified(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    submit = ("request", "submit", "--forget", "cat@r1", "--id", "q", "--alpha", "1")
    assert run([*submit, "--lambda", "0.5", "--gauge", "3", "--token", secret("operator")]) == 0
    capsys.readouterr()
    first = tmp_path / "first.jsonl"
    noted = as_json(capsys, "audit", "export", "--out", str(first))
    assert run(["request", "approve", "q"]) == 0
    assert run(["request", "watch", "q"]) == 0
    capsys.readouterr()

    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    printed = as_json(capsys, "audit", "export", "--out", str(whole))
    assert printed["entries"] > noted["entries"]
    assert whole.read_bytes().count(b"\n") == printed["entries"] + 1
    verdict = as_json(capsys, "audit", "verify", str(whole), "--head", noted["head"])
    assert (verdict["sound"], verdict["problem"]) == (True, None)
    assert (verdict["entries"], verdict["head"]) == (printed["entries"], printed["head"])

    assert run(["audit", "export", "q", "--out", str(part)]) == 0
    assert str(part) in capsys.readouterr().out
    verdict = as_json(capsys, "audit", "verify", str(part))
    assert (verdict["sound"], verdict["request"]) == (True, "q")
    entries = [json.loads(line) for line in part.read_text().splitlines()[1:]]
    assert [entries[0]["kind"], entries[-1]["kind"]] == ["received", "completed"]
    assert entries[0]["actor"] == "operator:operator"
    actors = {entry["kind"]: entry["actor"] for entry in entries}
    assert actors["approved"] == "approver:approver"
    assert actors["completed"] == "coordinator"
    assert {entry["request"] for entry in entries} == {"q"}

    # The earlier export lacks the later entries.
    assert as_json(capsys, "audit", "verify", str(first), "--head", printed["head"], code=1)


OFFLINE = """
import socket, sys

def refuse(*_, **__):
    raise AssertionError("somebody asked the network")

socket.socket.connect = socket.socket.bind = socket.getaddrinfo = refuse
from disinherit.cli.main import run

code = run(sys.argv[1:])
assert "grpc" not in sys.modules
sys.exit(code)
"""


def offline(*arguments: object, code: int) -> Any:
    """JSON output of a process without network, coordinator or token."""
    command = [sys.executable, "-c", OFFLINE, *map(str, arguments), "--format", "json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISINHERIT_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_tampering_is_found_offline_and_its_entry_named(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    log, attestation, keys = (tmp_path / name for name in ("log", "attestation", "keys"))
    with serving(shutil.copytree(built, tmp_path / "copy"), approval=False) as running:
        monkeypatch.setenv("DISINHERIT_SERVER", running.address)
        monkeypatch.setenv("DISINHERIT_TOKEN", secret("operator"))
        submit = ("request", "submit", "--forget", "cat@r1", "--id", "q", "--alpha", "1")
        assert run([*submit, "--lambda", "0.5", "--gauge", "3"]) == 0
        assert run(["request", "watch", "q"]) == 0
        capsys.readouterr()
        made = as_json(capsys, "audit", "attest", "q", "--out", str(attestation))
        assert made["coverage"]["complete"]
        assert "suppression" in made["gaps"]
        exported = as_json(capsys, "audit", "export", "--out", str(log))
        known = as_json(capsys, "audit", "keys", "--out", str(keys))
        assert exported["signed_by"] == made["signed_by"] == [known["keys"][0]["id"]]
        printed = as_json(capsys, "request", "report", "q")
        assert run(["request", "report", "q"]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("r6~q", "5 verified", "suppression"))
    # No coordinator runs from here on.
    assert printed["audit"]["head"] in log.read_text()
    assert printed["coverage"] == {"verified": 5}
    assert {model["applied"]["alpha"] for model in printed["models"]} == {None}  # rows taken out
    assert printed["seconds"]["received to ended"] > 0
    verify = ("audit", "verify", log, "--key", keys, "--attestation", attestation)
    printed = offline(*verify, code=0)
    assert (printed["sound"], printed["attested_request"]) == (True, "q")
    sound = log.read_bytes()
    header, *lines = sound.splitlines(keepends=True)
    at = len(lines) - 3  # zero-based index of the third entry from the end
    flipped = bytearray(lines[at])
    flipped[60] ^= 1
    forged = json.loads(header)
    value = bytearray(base64.b64decode(forged["signatures"][0]["sig"]))
    value[5] ^= 1
    forged["signatures"][0]["sig"] = base64.b64encode(value).decode()
    for spoiled, entry, finding in (
        ([header, *lines[:at], bytes(flipped), *lines[at + 1 :]], at + 1, "changed"),
        ([header, *lines[:at], *lines[at + 1 :]], at + 1, "removed"),
        ([header, *lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]], at + 1, "re-ordered"),
        ([canonical(forged) + b"\n", *lines], len(lines), "forged"),
    ):
        log.write_bytes(b"".join(spoiled))
        printed = offline(*verify, code=1)
        assert (printed["problem"]["entry"], printed["problem"]["finding"]) == (entry, finding)
    # A rebuilt chain without the key verifies, but not as the coordinator's.
    lies = chain([AuditEvent("received", 1, "mallory", "q")])
    log.write_bytes(header + b"".join(export(lies)[1:]))
    assert offline(*verify, code=1)["problem"]["finding"] == "truncated"
    log.write_bytes(b"".join(export(lies)))
    assert offline(*verify, code=1)["problem"]["finding"] == "not signed"
    # A changed attestation, or one signed by another key, is refused.
    log.write_bytes(sound)
    envelope = read_envelope(attestation.read_bytes())
    statement = json.loads(envelope.payload)
    statement["predicate"]["gaps"] = []
    payload = canonical(statement)
    for one in (
        enclose(envelope.payload_type, payload, envelope.signatures.values()),
        Signer(Ed25519PrivateKey.generate()).envelope(envelope.payload_type, payload),
    ):
        attestation.write_bytes(envelope_line(one))
        printed = offline(*verify, code=1)
        assert (printed["problem"]["entry"], printed["problem"]["finding"]) == (
            len(lines),
            "forged",
        )


def test_refused_attestation_prints_one_line(
    running: Running, file: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "attestation"
    submit = ("request", "submit", "--forget", "cat@r1", "--id", "q")
    assert run([*submit, "--token", secret("operator")]) == 0
    capsys.readouterr()
    assert run(["audit", "attest", "q", "--out", str(out)]) == 2
    assert "awaiting_approval" in error_line(capsys)
    assert run(["audit", "attest", "nobody", "--out", str(out)]) == 5
    assert "'nobody'" in error_line(capsys)
    assert not out.exists()
    assert run(["audit", "verify", str(file), "--attestation", str(file)]) == 2
    assert "--public-key" in error_line(capsys)
    assert run(["audit", "verify", str(file), "--key", str(file)]) == 2
    assert "audit keys" in error_line(capsys)


def test_refused_export_leaves_the_file_unchanged(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "audit.jsonl"
    out.write_text("before")
    assert run(["audit", "export", "nobody", "--out", str(out)]) == 5
    assert "'nobody'" in error_line(capsys)
    assert run(["audit", "export", "--out", str(out), "--token", secret("viewer")]) == 4
    assert "to export the audit log" in error_line(capsys)
    assert run(["audit", "export", "--out", str(tmp_path / "no" / "audit.jsonl")]) == 2
    assert "audit.jsonl" in error_line(capsys)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.jsonl", "copy"]


def test_sound_export_is_reported_as_sound(file: Path, capsys: Capture) -> None:
    assert run(["audit", "verify", str(file)]) == 0
    assert capsys.readouterr().out == f"sound: 5 entries, head {ENTRIES[-1].hash}\nnot signed\n"
    file.write_bytes(header_line(Header(0, "")) + b"\n")
    assert run(["audit", "verify", str(file)]) == 0
    assert "0 entries, head none" in capsys.readouterr().out


def test_every_damage_to_an_export_is_reported_with_its_entry(file: Path, capsys: Capture) -> None:
    header, *lines = export(ENTRIES)
    flipped = bytearray(lines[2])
    flipped[40] ^= 1
    for spoiled, entry, finding in (
        ([*lines[:2], bytes(flipped), *lines[3:]], 3, "changed"),
        ([*lines[:2], *lines[3:]], 3, "removed"),
        ([lines[0], lines[3], lines[2], lines[1], lines[4]], 2, "re-ordered"),
        ([*lines[:3], *lines[1:]], 2, "added"),
        (lines[:4], 5, "truncated"),
    ):
        file.write_bytes(b"".join([header, *spoiled]))
        printed = as_json(capsys, "audit", "verify", str(file), code=1)
        assert not printed["sound"]
        assert (printed["problem"]["entry"], printed["problem"]["finding"]) == (entry, finding)
        assert run(["audit", "verify", str(file)]) == 1
        assert f"entry {entry} {finding}" in capsys.readouterr().out


def test_a_log_that_was_rewritten_does_not_lead_to_the_head(file: Path, capsys: Capture) -> None:
    events = [AuditEvent("sent", time, "mallory") for time in range(5)]
    file.write_bytes(b"".join(export(chain(events))))
    assert run(["audit", "verify", str(file)]) == 0
    capsys.readouterr()
    printed = as_json(capsys, "audit", "verify", str(file), "--head", ENTRIES[2].hash, code=1)
    assert printed["problem"]["finding"] == "truncated"


@pytest.mark.parametrize(
    ("content", "options", "named"),
    [
        (None, (), "No such file"),
        (b"", (), "first line"),
        (b"\xff\x00" * 1000, (), "first line"),
        (b'{"models": []}\n', (), "first line"),
        (b"x" * 4_000_000, (), "first line"),
        (b"".join(export(ENTRIES)), ("--head", "9c56"), "'9c56'"),
    ],
)
def test_file_without_an_export_prints_one_line(
    content: bytes | None, options: tuple[str, ...], named: str, file: Path, capsys: Capture
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert run(["audit", "verify", str(file), *options]) == 2
    assert named in error_line(capsys)


def test_verifying_explains_itself(capsys: Capture) -> None:
    assert run(["audit", "verify", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "disinherit audit verify audit.jsonl --head" in out
    assert "--server" not in out
