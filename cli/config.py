"""`disinherit config`: configurations, checked before a program is started with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import Format, FormatOption, print_json, print_line, warn_line
from disinherit.common.errors import DisinheritError, InputError
from disinherit.common.text import load_toml, one_line

app = Commands("Check configurations.")


@app.command(
    epilog="Examples:\n\n"
    "disinherit config check serve.toml tokens.toml\n\n"
    "disinherit config check /etc/disinherit/agent.toml"
)
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="serve.toml, tokens.toml or agent.toml, by any name."
        ),
    ],
    form: FormatOption = Format.TABLE,
) -> int:
    """Check configurations and the files that they name; exit code 2 if one is wrong."""
    found: list[dict[str, Any]] = []
    for path in files:
        kind, wrong = _checked(path)
        found.append({"file": str(path), "kind": kind or None, "wrong": wrong})
        if form is Format.JSON:
            continue
        for problem in wrong:
            warn_line(f"error: {problem}")
        if not wrong:
            print_line(f"{path}: fine, {kind}")
    if form is Format.JSON:
        print_json(found)
    return 2 if any(one["wrong"] for one in found) else 0


def _checked(path: Path) -> tuple[str, list[str]]:
    """Return what a file configures, `""` if that cannot be said, and what is wrong."""
    try:
        kind, missing = _looked_at(path)
    except DisinheritError as error:
        return "", [one_line(str(error))]
    return kind, [f"In {path}: {what}" for what in missing]


def _looked_at(path: Path) -> tuple[str, list[str]]:
    """Return what a file configures, and which files that it names are missing."""
    keys = _keys(path)
    kinds: list[tuple[str, set[str], Callable[[Path], list[str]]]] = [
        ("a token file", {"token"}, _tokens),
        ("an agent", {"owner", "factory", "state"}, _agent),
        ("a coordinator", {"database", "listen", "tokens", "agents", "tls", "ui"}, _service),
    ]
    for kind, marks, look in kinds:
        if marks & keys or (kind == "a token file" and not keys):
            return kind, look(path)
    raise InputError(
        f"Expected the configuration of a coordinator or an agent, or tokens, but {path} has none "
        f"of their settings. Start with disinherit init."
    )


def _keys(path: Path) -> set[str]:
    try:
        return set(load_toml(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"Expected a configuration {path}, but: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"Expected TOML in {path}, but: {error}.") from None


def _tokens(path: Path) -> list[str]:
    from disinherit.server.service.principals import TokenBook

    TokenBook.read(path)
    return []


def _agent(path: Path) -> list[str]:
    from disinherit.client.agent.config import read_config

    config = read_config(path)
    return _absent({"ca": config.ca})


def _service(path: Path) -> list[str]:
    from disinherit.server.service.principals import TokenBook
    from disinherit.server.service.settings import read_settings

    settings = read_settings(path, {}, {})
    files: dict[str, Path | None] = {"tokens": settings.tokens}
    if settings.tls is not None:
        files |= {"tls.certificate": settings.tls.certificate, "tls.key": settings.tls.key}
        files["tls.client_ca"] = settings.tls.client_ca
    if settings.ui is not None:
        files |= {"ui.certificate": settings.ui.certificate, "ui.key": settings.ui.key}
    missing = _absent(files)
    if settings.tokens.exists():
        TokenBook.read(settings.tokens)
    database = settings.database
    if isinstance(database, Path) and not database.parent.is_dir():
        missing.append(f"database is to be in {database.parent}, which is no folder")
    return missing


def _absent(files: dict[str, Path | None]) -> list[str]:
    return [
        f"{key} names {path}, which does not exist"
        for key, path in files.items()
        if path is not None and not path.is_file()
    ]
