"""Settings of `serve`: the file, options over it, and one-line errors."""

import re
from pathlib import Path

import pytest

from disinherit.common.errors import InputError
from disinherit.server.agents.fleet import FleetSettings
from disinherit.server.service.listening import TlsFiles, UiSettings
from disinherit.server.service.settings import ServeSettings, read_settings
from tests import ROOT

FULL = """
database = "coordinator.db"
packets = "packets"
listen = "0.0.0.0:50051"
tokens = "tokens.toml"
approval = false

[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "ca.pem"

[signing]
key = "signing.pem"

[agents]
authority = "authority"
hosts = ["fleet.example.org", "10.0.0.1"]
listen = "0.0.0.0:50052"
enrol_listen = "0.0.0.0:50053"
"""


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(FULL)
    assert read_settings(tmp_path / "serve.toml", {}, {}) == ServeSettings(
        database=tmp_path / "coordinator.db",
        tokens=tmp_path / "tokens.toml",
        listen="0.0.0.0:50051",
        packets=tmp_path / "packets",
        tls=TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem"),
        approval=False,
        agents=FleetSettings(
            tmp_path / "authority",
            ["fleet.example.org", "10.0.0.1"],
            "0.0.0.0:50052",
            "0.0.0.0:50053",
        ),
        signing_key=tmp_path / "signing.pem",
    )


TLS = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n'
OWN = 'certificate = "ui.pem"\nkey = "ui.key"\n'


@pytest.mark.parametrize(
    ("tls", "ui", "files"),
    [
        ("", "", (None, None, None)),
        (TLS, "", (None, None, None)),  # of this machine: no name of it is in a certificate
        (TLS, 'listen = "0.0.0.0:443"\n', ("server.pem", "server.key", None)),
        (TLS, f'listen = "0.0.0.0:443"\n{OWN}', ("ui.pem", "ui.key", None)),
        (f'{TLS}client_ca = "ca.pem"\n', "", ("server.pem", "server.key", "ca.pem")),
        (f'{TLS}client_ca = "ca.pem"\n', OWN, ("ui.pem", "ui.key", "ca.pem")),
    ],
)
def test_a_dashboard_is_as_safe_as_the_port(
    tls: str, ui: str, files: tuple[str | None, ...], tmp_path: Path
) -> None:
    """It never asks browsers for less than the port asks of other callers."""
    path = tmp_path / "serve.toml"
    path.write_text(f'database = "c.db"\ntokens = "t.toml"\n{tls}[ui]\n{ui}')
    expected = [tmp_path / one if one else None for one in files]
    found = read_settings(path, {}, {}).ui
    assert found is not None
    assert [found.certificate, found.key, found.client_ca] == expected


def test_a_dashboard_is_named_with_its_names(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('database = "c.db"\ntokens = "t.toml"\n[ui]\nhost_names = ["ui.example.org"]\n')
    found = read_settings(path, {}, {}).ui
    assert found == UiSettings(host_names=("ui.example.org",))


def test_the_settings_of_the_page_about_the_dashboard_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "dashboard.md").read_text()
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "serve.toml").write_text(settings)
    found = read_settings(tmp_path / "serve.toml", {}, {}).ui
    assert found == UiSettings(listen="127.0.0.1:8787", host_names=("ui.example",))


def test_database_and_packets_may_be_urls(tmp_path: Path) -> None:
    urls = 'database = "postgresql+psycopg://host/fleet"\npackets = "s3://bucket/packets"\n'
    (tmp_path / "serve.toml").write_text(f'{urls}tokens = "tokens.toml"\n')
    settings = read_settings(tmp_path / "serve.toml", {}, {})
    assert settings.database == "postgresql+psycopg://host/fleet"
    assert settings.packets == "s3://bucket/packets"


def test_options_win(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(FULL)
    options = {"database": "postgresql://host/fleet", "listen": "127.0.0.1:1", "approval": None}
    settings = read_settings(tmp_path / "serve.toml", options, {"key": Path("other.key")})
    assert settings.database == "postgresql://host/fleet"
    assert settings.listen == "127.0.0.1:1"
    assert settings.approval is False
    assert settings.tls is not None
    assert settings.tls.key == Path("other.key")
    assert settings.tls.certificate == tmp_path / "server.pem"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "serve.toml"),
        ("x", "TOML"),
        ("datbase = 'x'", "datbase"),
        (
            'database = "c.db"\ntokens = "t"\n[ui]\nlisten = "0.0.0.0:1"',
            "certificate and key, here",
        ),
        ('database = "c.db"\ntokens = "t"\n[ui]\nlisten = "here"', "ui in"),
        ('database = "c.db"\ntokens = "t"\n[ui]\nkey = "a.key"', "only one"),
        ("database = 3", "database"),
        ("tls = 'x'", "tls"),
        ("[tls]\ncert = 'x'", "tls.cert"),
        ("[tls]\nkey = 3", "tls.key"),
        ("database = 'x'", "--tokens"),
        ("tokens = 'x'", "--database"),
        ("database = 'x'\ntokens = 'y'\nlisten = 'here'", "host:port"),
        ("[agents]\nhosts = ['x']", "agents.authority"),
        ("[agents]\nhost = 'x'", "agents.host"),
        ("database = 'x'\ntokens = 'y'\n[tls]\nkey = 'k'", "certificate and key"),
    ],
)
def test_a_wrong_setting_is_named(text: str | None, named: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(InputError, match=named):
        read_settings(tmp_path / "serve.toml", {}, {})
