"""A screen: where it is, what it shows, and the command that says the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from disinherit.common.errors import InputError
from disinherit.ui.sessions import VisitorSession
from disinherit.ui.visitors import Visitor


@dataclass(frozen=True, slots=True)
class Page:
    """What a visitor asks for.

    Attributes:
        session: the visitor.
        query: the parameters after the path.
    """

    session: VisitorSession
    query: QueryParams

    @property
    def visitor(self) -> Visitor:
        """Makes the calls."""
        return self.session.visitor

    def text(self, name: str) -> str:
        """Return a parameter without spaces around it; `""` if it is not there."""
        return self.query.get(name, "").strip()

    def needed(self, name: str, example: str) -> str:
        """Return a parameter.

        Raises:
            InputError: if it is not there.
        """
        value = self.text(name)
        if not value:
            raise InputError(f"Expected ?{name}=..., such as {example}, but got none.")
        return value

    def number(self, name: str, default: int) -> int:
        """Return a parameter that is a whole number from 0 on.

        Raises:
            InputError: if it is anything else.
        """
        text = self.text(name)
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            raise InputError(f"Expected a number as {name}, but got {text[:50]!r}.")
        return int(text)


@dataclass(frozen=True, slots=True)
class Screen:
    """One page of the dashboard.

    Attributes:
        path: of the page; its values are at the same path with `.json`.
        title: of the page.
        part: template of its content.
        load: returns its values, of which JSON can be made.
        command: returns the words of the command that says the same.
        live: whether it is drawn anew at each change in the fleet.
        roles: who may see it.
        menu: whether it is in the menu.
    """

    path: str
    title: str
    part: str
    load: Callable[[Page], Mapping[str, Any]]
    command: Callable[[Page], Sequence[str]]
    live: bool = False
    roles: tuple[str, ...] = ("viewer", "operator", "approver")
    menu: bool = True
