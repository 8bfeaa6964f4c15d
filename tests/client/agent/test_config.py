"""The agent's configuration: reading, and refusals with the setting's name."""

from pathlib import Path

import pytest

from disinherit.client.agent import read_config
from disinherit.client.agent.agent import load_factory
from disinherit.client.agent.hours import Hours
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.common.encodings import Encoding
from disinherit.common.errors import InputError

SOUND = {
    "owner": '"anna"',
    "server": '"coordinator.example:8443"',
    "ca": '"ca.pem"',
    "state": '"state"',
    "factory": '"tests.support.agent_owner:open_points"',
}


def write(folder: Path, **changes: str | None) -> Path:
    values = {**SOUND, **changes}
    path = folder / "agent.toml"
    path.write_text("".join(f"{k} = {v}\n" for k, v in values.items() if v is not None))
    return path


def test_a_short_configuration_is_enough(tmp_path: Path) -> None:
    config = read_config(write(tmp_path))
    assert (config.owner, config.server) == ("anna", "coordinator.example:8443")
    assert (config.ca, config.state) == (tmp_path / "ca.pem", tmp_path / "state")
    assert (config.enrol_server, config.bytes_per_second, config.hours) == ("", 0, None)
    assert (config.release, config.acceptance) == (OPEN, ANYBODY)


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = read_config(
        write(
            tmp_path,
            state='"/var/lib/agent"',
            enrol_server='"c:1"',
            bytes_per_second="500_000",
            hours='"22:00-06:30"',
            release='{min_forget_samples = 20, encoding = "log8"}',
            acceptance='{refuse_deltas_of = ["ben"]}',
        )
    )
    assert config.release == ReleasePolicy(20, Encoding.LOG8)
    assert config.acceptance == AcceptancePolicy(refuse_deltas_of=("ben",))
    assert config.state == Path("/var/lib/agent")
    assert (config.enrol_server, config.bytes_per_second) == ("c:1", 500_000)
    assert config.hours == Hours(22 * 3600.0, 6.5 * 3600.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": None}, "owner"),
        ({"owner": '""'}, "owner"),
        ({"owner": "7"}, "owner"),
        ({"owner": '"a/b"'}, "a/b"),
        ({"server": '"coordinator"'}, "host:port as server"),
        ({"server": '"https://coordinator:1"'}, "host:port as server"),
        ({"enrol_server": '""'}, "host:port as enrol_server"),
        ({"factory": '"open_points"'}, "module:function"),
        ({"bytes_per_second": "-1"}, "bytes_per_second"),
        ({"bytes_per_second": "true"}, "bytes_per_second"),
        ({"bytes_per_second": "1.5"}, "bytes_per_second"),
        ({"hours": '"22-6"'}, "22:00-06:00"),
        ({"hours": '"25:00-06:00"'}, "25:00"),
        ({"hours": '"06:00-06:00"'}, "06:00-06:00"),
        ({"release": "{min_forget_samples = 0}"}, "min_forget_samples"),
        ({"release": "{colour = 3}"}, "colour"),
        ({"acceptance": "{accept_deltas = 1}"}, "accept_deltas"),
        ({"colour": '"red"'}, "colour"),
        ({"owner": "anna"}, "TOML"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    changes: dict[str, str | None], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="Expected") as refused:
        read_config(write(tmp_path, **changes))
    assert words in str(refused.value)


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_config(tmp_path / "agent.toml")


@pytest.mark.parametrize(
    "factory", ["no_such_module:f", "tests.support.agent_owner:no_such_function"]
)
def test_a_factory_that_cannot_be_imported_is_refused(factory: str, tmp_path: Path) -> None:
    config = read_config(write(tmp_path, factory=f'"{factory}"'))
    with pytest.raises(InputError, match="can be imported"):
        load_factory(config)
