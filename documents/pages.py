"""The environment of templates: everything is escaped, a name that is missing is an error."""

import base64
import functools
import hashlib
from dataclasses import dataclass

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from disinherit.documents.words import count, joined, minute, number, plain, signed, typographic

LONG_TABLE = 24
"""Rows above which a table can be sorted and filtered, and charts show the worst only."""

WORST = 20
"""Models that are shown in detail where they are too many for all."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script of a page, which the page's policy allows by its hash, and nothing else.

    Attributes:
        text: the script.
        hash: as a source of a Content-Security-Policy.
    """

    text: Markup
    hash: str


@functools.cache
def environment(package: str = "disinherit.documents") -> Environment:
    """Return an environment with the templates of a package, and those shared by all pages.

    Args:
        package: the package with a folder `templates`.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("disinherit.documents")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=lambda *values: typographic(number(*values)),
        signed=lambda value: typographic(signed(value)),
        plain=lambda value: typographic(plain(value)),
        minus=typographic,
        joined=joined,
        minute=minute,
    )
    found.globals.update(count=count)
    return found


@functools.cache
def sorting() -> Script:
    """Return the script that sorts and filters tables of the class `sortable`."""
    loader = PackageLoader("disinherit.documents")
    text, _, _ = loader.get_source(environment(), "sorting.js")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")
