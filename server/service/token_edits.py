"""Edits of a token file: what a person wrote in it stays as it is."""

import hashlib
import re
import secrets
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import tomli_w

from disinherit.common.errors import InputError, NotFoundError
from disinherit.common.files import write_atomic
from disinherit.common.text import did_you_mean
from disinherit.server.service.principals import TokenBook

_ENTRY = re.compile(r"^[ \t]*\[\[[ \t]*token[ \t]*\]\]", re.MULTILINE)
_SECRET_BYTES = 32


def add_token(path: Path, name: str, role: str, expires: datetime | None) -> str:
    """Add a token with a new secret to a file, which is made if there is none.

    Args:
        path: the token file.
        name: name of its holder in the logs; no other token has it.
        role: viewer, operator, approver, or owner:NAME.
        expires: with a time zone; `None` for never.

    Returns:
        The secret, of which the file has only the digest.

    Raises:
        InputError: if the file cannot be read, the role is unknown or the name is taken; nothing is
            written then.
    """
    token = secrets.token_urlsafe(_SECRET_BYTES)
    entry: dict[str, object] = {
        "name": name,
        "role": role,
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
    }
    if expires is not None:
        entry["expires"] = expires
    before = _text(path) if path.exists() else ""
    lines = [f"{key} = {value}" for key, value in _values(entry)]
    gap = "\n" if before and not before.endswith("\n\n") else ""
    _write(path, f"{before}{gap}[[token]]\n" + "\n".join(lines) + "\n")
    return token


def remove_token(path: Path, name: str) -> None:
    """Take a token out of a file.

    Raises:
        InputError: if the file cannot be read, or has its tokens in a form that only a person can
            edit.
        NotFoundError: if it has no token with this name.
    """
    names = [one.principal.name for one in TokenBook.read(path).tokens]
    if name not in names:
        raise NotFoundError(
            f"Expected the name of a token in {path}, but got {name!r}.{did_you_mean(name, names)}"
        )
    text = _text(path)
    starts = [found.start() for found in _ENTRY.finditer(text)]
    for start, end in pairwise([*starts, len(text)]):
        (entry,) = TokenBook.parse(text[start:end], str(path)).tokens
        if entry.principal.name == name:
            lines = text[start:end].splitlines(keepends=True)
            own = max(at for at, line in enumerate(lines) if line.partition("#")[0].strip())
            _write(path, text[:start] + "".join(lines[own + 1 :]).lstrip("\n") + text[end:])
            return
    raise InputError(
        f"Expected the token {name!r} as a table [[token]] with its name in {path}, but it is "
        "written in another way. Take it out with an editor."
    )


def _values(entry: dict[str, object]) -> list[tuple[str, str]]:
    return [
        (key, tomli_w.dumps({key: value}).partition("=")[2].strip()) for key, value in entry.items()
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected a token file {str(path)!r}, but: {error}.") from None


def _write(path: Path, text: str) -> None:
    """Replace a token file, with the rights that it had, if the text is one."""
    TokenBook.parse(text, str(path))
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_atomic(path, text.encode())
    path.chmod(mode)
