"""Pages that users read, with their blocks of code and the commands in these."""

import re
import shlex
from itertools import product
from pathlib import Path

from tests import ROOT

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PUNCTUATION = frozenset("();<>|&")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def pages() -> list[Path]:
    """All pages, those of examples included."""
    folders = (("*.md", ROOT), ("**/*.md", ROOT / "docs"), ("**/*.md", ROOT / "examples"))
    return sorted(path for pattern, folder in folders for path in folder.glob(pattern))


def name_of(page: Path) -> str:
    """Path of a page from the root of the project."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: str | Path) -> list[tuple[str, str]]:
    """Language and text of the blocks of a page, in order."""
    return _BLOCK.findall((ROOT / page).read_text())


def texts(page: str | Path, language: str) -> list[str]:
    """Texts of the blocks of a page in a language, in order."""
    return [text for of, text in blocks(page) if of == language]


def inline(page: Path) -> list[str]:
    """What a page sets as code within its sentences and tables."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text()))


_FUNCTION = re.compile(r"\w+\(\) \{ .+ \}")
_OF_LOOPS = ("until", "do", "done")


def commands(script: str) -> list[list[str]]:
    """Words of the commands of a shell script: no redirections, variables set, or functions."""
    found: list[list[str]] = []
    for line in script.replace("\\\n", " ").splitlines():
        if _FUNCTION.fullmatch(line):
            continue
        line = re.sub(r"(?<=\s)2>", ">", line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for token in [*lexer, ";"]:
            if not token or not set(token) <= _PUNCTUATION:
                if not redirected:
                    words.append(token)
                redirected = False
            elif token in ("<", ">", ">>"):
                redirected = True
            else:
                found.append(_without_prefix(words))
                words = []
    return [words for words in found if words]


def _without_prefix(words: list[str]) -> list[str]:
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in _OF_LOOPS):
        words = words[1:]
    return [one for word in words for one in _expanded(word)]


def _expanded(word: str) -> list[str]:
    """What a shell makes of braces in a word."""
    parts = _BRACES.split(word)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]
