"""The dashboard in the process of a coordinator."""

import asyncio
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from disinherit.common.errors import InputError
from disinherit.server.service.banner import describe
from disinherit.server.service.hosting import Service
from disinherit.server.service.listening import InnerPort
from disinherit.server.service.settings import read_settings
from disinherit.ui.beside import Beside
from disinherit.ui.serving import Address
from tests.server.service.test_security import Authority
from tests.support.dashboard import form_key
from tests.support.service import secret, write_tokens


def test_a_visitor_sees_what_the_coordinator_knows(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens.toml")
    (tmp_path / "serve.toml").write_text(
        'database = "coordinator.db"\ntokens = "tokens.toml"\nlisten = "127.0.0.1:0"\n'
        '[ui]\nlisten = "127.0.0.1:0"\n'
    )
    settings = read_settings(tmp_path / "serve.toml", {}, {})
    beside = Beside(Address(port=0))
    service = Service(settings)
    assert service.inner is not None
    socket = Path(service.inner.target.removeprefix("unix:"))
    assert socket.parent.stat().st_mode & 0o077 == 0  # of this user only
    service.start()
    beside.start(service.inner.target, "coordinator.example:50051")
    try:
        assert describe(settings, service)["dashboard"] == "http://127.0.0.1:0"
        with httpx.Client(base_url=beside.url, follow_redirects=True) as browser:
            form = {"form_key": form_key(browser.get("/sign-in").text), "token": "wrong"}
            assert browser.post("/sign-in", data=form).status_code == 401
            form["token"] = secret("viewer")
            assert "<h1>Overview" in browser.post("/sign-in", data=form).text
            assert browser.get("/campaigns.json").json()["total"] == 0
            assert browser.get("/system").status_code == 403
    finally:
        beside.stop()
        service.stop()
    assert not socket.parent.exists()


def test_a_folder_that_is_too_long_for_a_socket_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(InputError, match="Set TMPDIR to a shorter one"):
        InnerPort(grpc.server(ThreadPoolExecutor(1)))
    assert list(folder.iterdir()) == []


def test_an_address_that_is_taken_is_known_at_once() -> None:
    first = Beside(Address(port=0))
    with pytest.raises(InputError, match="Expected a free address"):
        Beside(Address(port=first._port))
    first._listener.close()


def test_files_that_are_no_certificate_are_known_at_once(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ours").issue("server")
    other, _ = Authority(tmp_path, "theirs").issue("other")
    for wrong in (other, key):
        with pytest.raises(InputError, match="Expected a certificate with its key in PEM"):
            Beside(Address("127.0.0.1", 0, wrong, key))
    Beside(Address("127.0.0.1", 0, certificate, key))._listener.close()


def test_browsers_present_a_certificate_where_callers_do_and_see_one_that_was_renewed(
    tmp_path: Path,
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    first = certificate.read_text()
    beside = Beside(Address("127.0.0.1", 0, certificate, key, client_ca=ours.path))
    beside.start("unix:nowhere", "coordinator.example:50051")
    port = int(beside.url.rpartition(":")[2])

    def shown(client: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=str(ours.path))
        if client is not None:
            context.load_cert_chain(*client)
        return httpx.get(f"{beside.url}/sign-in", verify=context).status_code

    try:
        assert beside.url.startswith("https://")
        assert shown(ours.issue("visitor")) == 200
        for stranger in (None, theirs.issue("stranger")):
            with pytest.raises(httpx.TransportError):
                shown(stranger)
        renewed, _ = ours.issue("server")
        look: Any = beside._server.config.callback_notify
        asyncio.run(look())
        seen = ssl.get_server_certificate(("127.0.0.1", port))
        assert ssl.PEM_cert_to_DER_cert(seen) == ssl.PEM_cert_to_DER_cert(renewed.read_text())
        assert renewed.read_text() != first
        key.write_text("half of a file")
        asyncio.run(look())
        assert shown(ours.issue("visitor")) == 200
    finally:
        beside.stop()
