"""The SuperLink of a run: which one Flower starts by itself, and what is said before."""

from pathlib import Path

import pytest

from disinherit.flower.superlinks import INSTALLS_NOTHING, is_started_by_flower, starting_line
from tests.support.ports import free_ports

CONFIG = """
[superlink]
default = "{}"
[superlink.local]
address = ":local:"
[superlink.memory]
address = ":local-in-memory:"
[superlink.hospital]
address = "127.0.0.1:9093"
[superlink.odd]
"""
PORT = "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (port,) = free_ports(1)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setenv(PORT, str(port))
    monkeypatch.delenv(INSTALLS_NOTHING, raising=False)
    return tmp_path


def test_connections_to_the_superlink_that_flower_starts(home: Path) -> None:
    assert [name for name in ("", "local", "hospital") if is_started_by_flower(name)] == [
        "",
        "local",
    ]
    names = ("", "local", "memory", "hospital", "odd", "unknown")
    for default in ("local", "hospital"):
        (home / "config.toml").write_text(CONFIG.format(default))
        found = [name for name in names if is_started_by_flower(name)]
        assert found == [""] * (default == "local") + ["local", "memory"]
    for text in ("[[", "", "superlink = 3", '[superlink]\ndefault = ["local"]'):
        (home / "config.toml").write_text(text)
        assert not is_started_by_flower("")


def test_what_flower_does_before_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    unless = f"; it first installs what the app depends on (a, b>=2), unless {INSTALLS_NOTHING}=1 "
    line = starting_line("", ["a", "b>=2"])
    assert line.startswith("starting a run of Flower, and its SuperLink at port ")
    assert unless in line
    assert "\n" not in line
    at = starting_line("hospital", ["a", "b>=2"])
    assert at.startswith(f"starting a run of Flower by the connection 'hospital'{unless}")
    monkeypatch.setenv(INSTALLS_NOTHING, "1")
    assert starting_line("hospital", ["a", "b>=2"]) == at, "only its SuperLink knows"
    assert starting_line("", ["a"]) == starting_line("", [])
    monkeypatch.setenv(PORT, "odd")
    assert starting_line("", []) == "starting a run of Flower"
