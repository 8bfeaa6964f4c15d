"""`disinherit samples digest`, and files of ids and digests."""

import json
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.cli.samples import read_samples
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import InputError
from disinherit.common.wire.samples import digest_samples
from tests.support.owner import PointsOwner

Capture = pytest.CaptureFixture[str]
SALT = "0f" * 16


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        return owner.store.root


def digest(store: Path, ids: Path, *more: str) -> int:
    return run(["samples", "digest", str(ids), "--store", str(store), "--model", "r1", *more])


def test_digests_are_made_with_the_owners_key(store: Path, tmp_path: Path, capsys: Capture) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("patient 7\npatient 8\n", encoding="utf-8")
    assert digest(store, ids, "--model", "r2", "--salt", SALT) == 0
    out = capsys.readouterr().out
    (tmp_path / "named.json").write_text(out)
    named = digest_samples(sample_key(store), SALT, ["patient 7", "patient 8"])
    assert read_samples(tmp_path / "named.json") == {"r1": named, "r2": named}
    assert "patient" not in out
    assert (store / "samples.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content",
    [
        b"patient 7\npatient 8\n",
        b"\xef\xbb\xbfpatient 7\r\npatient 8\r\n",
        b"patient 7 \n\tpatient 8\npatient 7\n\n",
        b'"patient 7"\r"patient 8"\r',
    ],
)
def test_ids_are_read_from_any_office_format(
    content: bytes, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes(content)
    assert digest(store, ids, "--salt", SALT) == 0
    found = json.loads(capsys.readouterr().out)["digests"]
    assert (
        tuple(found) == digest_samples(sample_key(store), SALT, ["patient 7", "patient 8"]).digests
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An agent's configuration, whose factory opens the models of `anna`."""
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("r1", ("cat", "dog"), 1)
    path = tmp_path / "anna.toml"
    path.write_text(
        'owner = "anna"\nserver = "127.0.0.1:1"\nca = "ca.pem"\nstate = "state"\n'
        'factory = "tests.support.agent_owner:open_points"\n'
    )
    return path


def test_lines_of_unknown_ids_are_listed(
    config: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("cat-0\nnobody-7\ncat-1\n")
    assert digest(store, ids, "--config", str(config)) == 2
    printed = capsys.readouterr()
    assert "those of 1 of 3 lines are unknown: 2 ('nobody-7')" in printed.err
    assert printed.out == ""
    assert digest(store, ids, "--config", str(config), "--ignore-unknown", "--salt", SALT) == 0
    printed = capsys.readouterr()
    assert "2 ('nobody-7')" in printed.err
    found = tuple(json.loads(printed.out)["digests"])
    assert found == digest_samples(sample_key(store), SALT, ["cat-0", "cat-1"]).digests
    ids.write_text("nobody-7\n")
    assert digest(store, ids, "--config", str(config), "--ignore-unknown") == 2
    assert digest(store, ids, "--ignore-unknown") == 2
    assert "--config with --ignore-unknown" in capsys.readouterr().err.splitlines()[-1]


def test_another_salt_each_time(store: Path, tmp_path: Path, capsys: Capture) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("a\n")
    salts = set()
    for _ in range(2):
        assert digest(store, ids) == 0
        salts.add(json.loads(capsys.readouterr().out)["salt"])
    assert len(salts) == 2


@pytest.mark.parametrize(
    ("content", "more", "words"),
    [
        (b"", (), "a sample id on each line"),
        (b"\n\n", (), "a sample id on each line"),
        (b"\xff\xfe", (), "in UTF-8"),
        (None, (), "No such file"),
        (
            b"a\n",
            ("--salt", "pepper"),
            "a salt of 32 hexadecimal digits, but got something of 6 char",
        ),
        (b"a\n", ("--model", "../r1"), "'../r1'"),
        (b"a\n", ("--store", "nowhere"), "it has no index.db"),
    ],
)
def test_wrong_input_prints_one_line_and_makes_no_key(
    content: bytes | None,
    more: tuple[str, ...],
    words: str,
    store: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    ids = tmp_path / "ids.txt"
    if content is not None:
        ids.write_bytes(content)
    assert digest(store, ids, *more) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (store / "samples.key").exists()


def test_a_damaged_key_is_refused(store: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "ids.txt").write_text("a\n")
    (store / "samples.key").write_bytes(b"short")
    assert digest(store, tmp_path / "ids.txt") == 2
    assert "a key of 32 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "patient-7\n",
        "[]",
        '{"models": ["r1"], "salt": "' + SALT + '"}',
        '{"models": [], "salt": "' + SALT + '", "digests": ["' + "ab" * 32 + '"]}',
        '{"models": ["r1"], "salt": 3, "digests": ["' + "ab" * 32 + '"]}',
        '{"models": ["r1"], "salt": "' + SALT + '", "digests": ["patient-7"]}',
        '{"models": ["r/1"], "salt": "' + SALT + '", "digests": ["' + "ab" * 32 + '"]}',
    ],
)
def test_file_without_samples_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "named.json"
    path.write_text(text)
    with pytest.raises(InputError, match="Expected") as refused:
        read_samples(path)
    assert "patient-7" not in str(refused.value)
