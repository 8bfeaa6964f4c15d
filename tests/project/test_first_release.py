"""What 0.1.0 wrote still opens and verifies, and is shown as it was.

`data/records_0_1_0` is one coordinator's: request q was carried out and attested under the first
key, then the second key took its place, and request p waits for an approval.
"""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from disinherit.cli.main import run
from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.dsse import TrustedKeys, envelope_line, read_envelope
from disinherit.common.audit.export import header_line, read_header, sign_header
from disinherit.common.graph.formats import dump_graph, load_graph
from disinherit.server.store.log_mark import Mark, read_mark
from disinherit.server.store.signing import open_signer
from disinherit.server.store.store import CoordinatorStore
from tests import ROOT
from tests.support.service import secret, serving

DATA = ROOT / "tests" / "data" / "records_0_1_0"
KEYS = str(DATA / "coordinator.pub")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The coordinator's folder: its database, the second key, and up to where that key signed."""
    database = gzip.decompress((DATA / "coordinator.db.gz").read_bytes())
    (tmp_path / "coordinator.db").write_bytes(database)
    for name in ("first.pem", "second.pem"):
        shutil.copy(DATA / name, tmp_path)
        (tmp_path / name).chmod(0o600)
    shutil.copy(tmp_path / "second.pem", tmp_path / "signing.pem")
    shutil.copy(DATA / "second.pem.head", tmp_path / "signing.pem.head")
    return tmp_path


def verified(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    assert run(["audit", "verify", *arguments, "--format", "json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["first.jsonl", "second.jsonl", "request.jsonl"])
def test_exports_and_the_attestation_verify(name: str, capsys: Capture) -> None:
    attestation = str(DATA / "attestation.json")
    found = verified(capsys, str(DATA / name), "--key", KEYS, "--attestation", attestation)
    assert (found["sound"], found["signature_checked"]) == (True, True)
    assert found["attested_request"] == "q"


def test_a_key_verifies_what_it_signed_and_no_more(folder: Path, capsys: Capture) -> None:
    for name, code in (("first.pem", 0), ("second.pem", 1)):
        public = folder / "public"
        public.write_bytes(open_signer(folder / name).public_pem)
        found = verified(capsys, str(DATA / "first.jsonl"), "--key", str(public), code=code)
        assert found["sound"] == (code == 0)
    # The first key, after the second one took its place.
    header, *lines = (DATA / "second.jsonl").read_bytes().splitlines(keepends=True)
    dated = read_header(header[:-1])
    late = sign_header(dated, open_signer(folder / "first.pem"), dated.signed_us)
    forged = folder / "forged.jsonl"
    forged.write_bytes(b"".join([header_line(late) + b"\n", *lines]))
    found = verified(capsys, str(forged), "--key", KEYS, code=1)
    assert "another one had taken its place" in found["problem"]["reason"]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(by="mallory"),
        lambda one: one.update(sig=one["sig"].replace("+", "-").replace("/", "_")),
        lambda one: one.update(sig=one["sig"] + "\n"),
    ],
)
def test_a_header_has_one_form(
    change: Callable[[dict[str, str]], None], folder: Path, capsys: Capture
) -> None:
    header, *lines = (DATA / "second.jsonl").read_bytes().splitlines(keepends=True)
    values = json.loads(header)
    change(values["signatures"][0])
    assert canonical(values) + b"\n" != header
    forged = folder / "forged.jsonl"
    forged.write_bytes(b"".join([canonical(values) + b"\n", *lines]))
    assert run(["audit", "verify", str(forged), "--key", KEYS]) == 2
    assert "first line" in capsys.readouterr().err


def test_the_keys_sign_as_they_did(folder: Path) -> None:
    trusted = TrustedKeys.from_pem((DATA / "coordinator.pub").read_bytes())
    for key, export in (("first.pem", "first.jsonl"), ("second.pem", "second.jsonl")):
        signer = open_signer(folder / key)
        assert trusted.knows(signer.key_id)
        line = (DATA / export).read_bytes().partition(b"\n")[0]
        header = read_header(line)
        assert header_line(sign_header(header, signer, header.signed_us)) == line
    data = (DATA / "attestation.json").read_bytes()
    envelope = read_envelope(data)
    assert envelope_line(envelope) + b"\n" == data
    again = open_signer(folder / "first.pem").envelope(envelope.payload_type, envelope.payload)
    assert envelope_line(again) + b"\n" == data


def test_the_graph_reads_and_writes_as_it_did(folder: Path) -> None:
    store = CoordinatorStore(folder / "coordinator.db")
    graph = store.graph()
    store.close()
    for form in ("json", "graphml", "protobuf"):
        data = (DATA / f"graph.{form}").read_bytes()
        read = load_graph(data, form)
        assert (read.models(), read.edges()) == (graph.models(), graph.edges())
        written = dump_graph(graph, form)
        assert (written.encode() if isinstance(written, str) else written) == data


SHOWN = {
    "list": ("request", "list"),
    "show_p": ("request", "show", "p"),
    "show_q": ("request", "show", "q"),
    "report_p": ("request", "report", "p"),
    "report_q": ("request", "report", "q"),
    "coverage": ("coverage", "q"),
    "models": ("model", "list"),
}


ADDED = {
    *("submitted_by", "approved", "approved_by", "decisions"),
    *("log_sequence", "log_head", "key"),
    *("told", "acknowledged", "done", "destroy_due", "held_by", "hardly_known"),
    *("before_interval", "after_interval"),
}
"""Names in reports that came after the first release."""


def without(value: Any, names: set[str]) -> Any:
    """A value of JSON without some names of its objects; times of events keep theirs."""
    if isinstance(value, dict):
        return {
            key: one if key == "times" else without(one, names)
            for key, one in value.items()
            if key not in names
        }
    return [without(one, names) for one in value] if isinstance(value, list) else value


def test_the_database_is_served_and_shown_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert isinstance(read_mark(folder / "signing.pem.head"), Mark)
    with serving(folder) as running:
        monkeypatch.setenv("DISINHERIT_SERVER", running.address)
        monkeypatch.setenv("DISINHERIT_TOKEN", secret("operator"))
        for name, command in SHOWN.items():
            assert run([*command, "--format", "json"]) == 0
            shown = json.loads(capsys.readouterr().out)
            if name.startswith("report"):
                shown = without(shown, ADDED)
            text = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
            assert text == (DATA / f"{name}.json").read_text(), name
        out = folder / "again.jsonl"
        assert run(["audit", "export", "--out", str(out)]) == 0
    capsys.readouterr()
    before = (DATA / "second.jsonl").read_bytes().splitlines()[1:]
    assert out.read_bytes().splitlines()[1:][: len(before)] == before
    assert verified(capsys, str(out), "--key", KEYS)["sound"]
