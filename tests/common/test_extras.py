"""Packages that are missing or fail at their import: one line says which, why, what to do."""

import re
import sys
from pathlib import Path

import pytest

import disinherit
from disinherit.cli.main import run
from disinherit.common.errors import DataError
from disinherit.common.extras import OF_UNIX, explained, import_problem, importing

BROKEN = "raise RuntimeError('operator broken::nms does not exist.')"
NEEDING = "import broken_build"
LAZY = """
def __getattr__(name):
    try:
        import broken_build
    except RuntimeError as error:
        raise ModuleNotFoundError("Could not import module " + name) from error
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three packages: one that fails, one that imports it, and one that does so when it is used."""
    site = tmp_path / "site-packages"
    for name, text in (("broken_build", BROKEN), ("needing", NEEDING), ("lazy", LAZY)):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(site))
    return site


def raised(code: str) -> Exception:
    try:
        exec(code, {})
    except Exception as error:
        return error
    raise AssertionError(code)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import broken_build", "Expected to import the package broken_build for bench, but"),
        ("import needing", "the package broken_build, which needing needs, for bench, but"),
        ("import lazy; lazy.LlamaForCausalLM", "the package broken_build for bench, but"),
    ],
)
def test_a_package_that_fails_is_named_with_its_reason(code: str, named: str) -> None:
    line = import_problem(raised(code), "bench")
    assert line is not None
    assert named in line
    assert "it raises RuntimeError: operator broken::nms does not exist. It does not fit" in line
    assert "install a build that does, or uninstall it" in line


NOT_ON_WINDOWS = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_a_system_without_what_unix_has_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for name in [name for name in sys.modules if name.startswith("disinherit.common.files")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "disinherit.cli.init", raising=False)
    assert run(["init", "agent", "--folder", str(tmp_path / "new")]) == 2
    said = "Expected Linux or macOS for `disinherit init`, but this Python has no module 'fcntl'"
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == tree


def test_every_module_that_windows_has_not_is_known() -> None:
    """Only what `OF_UNIX` names is answered with the system."""
    used = {
        name.partition(".")[0]
        for path in Path(disinherit.__file__).parent.rglob("*.py")
        for name in re.findall(r"^\s*(?:import|from) ([\w.]+)", path.read_text(), re.MULTILINE)
    }
    assert used & NOT_ON_WINDOWS == {*OF_UNIX}


def test_other_errors_are_nobody_s_import() -> None:
    code = "try:\n import broken_build\nexcept RuntimeError:\n raise ValueError from None"
    for error in (raised("1 / 0"), raised("import not_there_at_all"), raised(code)):
        assert import_problem(error, "bench") is None
        assert explained(error, "bench") is error


def test_public_names_raise_an_import_error() -> None:
    error = explained(raised("import needing"), "disinherit.huggingface")
    assert isinstance(error, ImportError)
    assert not isinstance(error, ModuleNotFoundError)
    assert "disinherit.huggingface" in str(error)


@pytest.mark.parametrize("kind", ["RuntimeError", "ImportError", "OSError"])
def test_a_block_of_imports_says_it_whatever_the_package_raises(kind: str, installed: Path) -> None:
    text = f"raise {kind}('libodd.so.1: cannot open shared object file')"
    (installed / "broken_build" / "__init__.py").write_text(text)
    line = f"package broken_build, which needing needs, for data set 'x', but it raises {kind}: lib"
    with pytest.raises(DataError, match=line), importing("data set 'x'", DataError):
        import needing  # type: ignore[import-not-found]  # noqa: F401


def test_a_block_of_imports_says_what_is_missing_or_too_old() -> None:
    line = r"'pandas' to be installed, but it is not. Run `pip install '\.\[simulation\]'`"
    with pytest.raises(DataError, match=line), importing("table x", DataError):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
    line = "import the package pandas.* for table x, but it raises ImportError: cannot import name"
    with pytest.raises(DataError, match=line), importing("table x", DataError):
        raise ImportError("cannot import name 'new' from 'pandas'", name="pandas")


def test_a_block_of_imports_lets_other_errors_pass() -> None:
    for error in (
        ZeroDivisionError(),
        ImportError("ours", name="disinherit.x"),
        OSError(28, "full"),
    ):
        with pytest.raises(type(error)) as caught, importing("table x", DataError):
            raise error
        assert caught.value is error


def test_a_command_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def use(*_: object) -> None:
        import needing  # noqa: F401

    monkeypatch.setattr("disinherit.cli.simulate.run_and_show", use)
    assert run(["demo", "--out", "never-made"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: Expected to import the package broken_build, which needing")
    assert printed.count("\n") == 1


def test_a_library_that_the_system_cannot_load_is_of_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: Path
) -> None:
    text = "import ctypes\nctypes.CDLL('libnot-here.so.1')"
    (installed / "broken_build" / "__init__.py").write_text(text)

    def use(*_: object) -> None:
        import needing  # noqa: F401

    monkeypatch.setattr("disinherit.cli.simulate.run_and_show", use)
    assert run(["demo", "--out", "never-made"]) == 2
    printed = capsys.readouterr().err
    assert (
        "broken_build, which needing needs, for `disinherit demo`, but it raises OSError" in printed
    )


def test_our_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("disinherit.cli.simulate.run_and_show", fail)
    with pytest.raises(ZeroDivisionError):
        run(["demo", "--out", "never-made"])
