"""The reference of configurations, made from their tables: run as a module, it writes the page."""

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from textwrap import dedent
from typing import Any

import click
import msgspec
import tomli_w
import typer.main

from disinherit.cli.commands import LazyCommand
from disinherit.cli.main import app
from disinherit.client.agent.config import _AgentFile
from disinherit.client.open_unlearning import checkout
from disinherit.client.privacy.acceptance import AcceptancePolicy
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.common.settings import _expected
from disinherit.common.settings import _options as _options_of
from disinherit.server.agents.fleet import FleetSettings
from disinherit.server.service.listening import TlsFiles
from disinherit.server.service.principals import _TokenFile
from disinherit.server.service.settings import ServeSettings, _ServiceFile
from disinherit.server.service.webhooks import WebhookSettings
from disinherit.simulations.data import datasets
from tests import ROOT

PAGE = ROOT / "docs" / "configuration.md"
FILES = {"serve.toml": _ServiceFile, "tokens.toml": _TokenFile, "agent.toml": _AgentFile}
_SUBTABLES: Mapping[tuple[str, str], type] = {
    ("agent.toml", "release"): ReleasePolicy,
    ("agent.toml", "acceptance"): AcceptancePolicy,
}
"""Tables that the reader of a file passes on: file and key, and the class that reads them."""

_IN_USE: Mapping[str, type] = {
    "_ServiceFile": ServeSettings,
    "_Tls": TlsFiles,
    "_Agents": FleetSettings,
    "_Webhook": WebhookSettings,
}
"""The class that has the default of a key that a file may leave out."""

UNITS: Mapping[tuple[str, str], str] = {
    ("_Agents", "agents"): "agents",
    ("_Webhook", "deadline_near"): "s, m, h or d",
    ("_AgentFile", "bytes_per_second"): "bytes a second",
    ("_AgentFile", "hours"): "hours and minutes",
    ("ReleasePolicy", "min_forget_samples"): "samples",
    ("ReleasePolicy", "clip_norm"): "squared gradient",
    ("ReleasePolicy", "noise_multiplier"): "C / n",
    ("ReleasePolicy", "max_sample_share"): "share of 1",
    ("ReleasePolicy", "delta_min_samples"): "samples",
}
"""Units of numbers and times, by class and key."""

_HEAD = """# Configuration

Every key of `serve.toml`, `tokens.toml` and `agent.toml`, and every environment variable.
`disinherit init coordinator` and `disinherit init agent` write first files with comments, and
`disinherit config check FILE...` reads files as the programs do. A key that is not here is refused,
in one line that says what was expected. Paths in a file are relative to its folder. Options of a
command win over the file. Examples: [service.md](service.md), [agent.md](agent.md),
[privacy.md](privacy.md).

*Needed* keys of `serve.toml` itself and of `[tls]` may be options of `disinherit serve` instead.

This page is made from the code by `make reference`.
"""
_SYSTEM = {
    "DISINHERIT_FLOWER": "folder of the models of Flower apps ([flower.md](flower.md)); "
    "`~/.disinherit/flower` without it",
    "DISINHERIT_HOST": "name under which others reach the machine, for `deploy/compose.yaml`",
    "XDG_CACHE_HOME": "folder of caches; `~/.cache` without it",
    "NO_COLOR": "if it is set, output has no colour",
    "grpc_proxy, https_proxy, http_proxy": "a proxy that gRPC calls the coordinator through; "
    "`no_proxy` names hosts without one",
}
"""Variables that no option and no constant of ours declares."""

_CONNECTED = 3
"""Commands with one option from which on they are not listed."""


def page() -> str:
    """The page as it should be."""
    parts = [_HEAD]
    for file, table in FILES.items():
        parts.append(f"\n## `{file}`\n\n{_prose(table)}\n\n{_rows(table)}")
        for key, inner, many in _tables(file, table):
            name = f"[[{key}]]" if many else f"[{key}]"
            parts.append(f"\n### `{name}` in `{file}`\n\n{_prose(inner)}\n\n{_rows(inner)}")
    parts.append("\n## Environment variables\n\nAn option on the command line wins.\n\n")
    parts.append("| variable | instead of | meaning |\n| --- | --- | --- |\n")
    parts += [f"| {name} | {option} | {meaning} |\n" for name, option, meaning in variables()]
    return "".join(parts)


def _tables(file: str, table: type) -> Iterator[tuple[str, type, bool]]:
    """The tables in a file: key, class, and whether there may be several."""
    for key, hint in typing.get_type_hints(table).items():
        structs = [one for one in _leaves(hint) if isinstance(one, type) and _has_keys(one)]
        for inner in structs:
            yield key, inner, typing.get_origin(hint) is tuple
        if (file, key) in _SUBTABLES:
            yield key, _SUBTABLES[file, key], False


def _leaves(hint: Any) -> list[Any]:
    inside = typing.get_args(hint)
    return [leaf for one in inside for leaf in _leaves(one)] if inside else [hint]


def _has_keys(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct)


def _prose(table: type) -> str:
    return _sections(table)[0]


def meanings(table: type) -> dict[str, str]:
    """Key -> meaning, as the docstring of a table has it."""
    return _sections(table)[1]


def _sections(table: type) -> tuple[str, dict[str, str]]:
    prose, _, rest = (inspect.getdoc(table) or "").partition("\nAttributes:\n")
    text = dedent(rest.partition("\nRaises:")[0])
    _, *entries = re.split(r"^(\w+): ", text, flags=re.MULTILINE)
    found = {
        name: " ".join(said.split()).replace("|", "\\|")
        for name, said in zip(entries[::2], entries[1::2], strict=True)
    }
    return prose.strip(), found


def _rows(table: type) -> str:
    said = meanings(table)
    lines = ["| key | type | unit | default | meaning |\n| --- | --- | --- | --- | --- |\n"]
    declared: Any = msgspec.inspect.type_info(table)
    for field in declared.fields:
        name = field.encode_name
        cells = (
            f"`{name}`",
            _type(field.type),
            UNITS.get((table.__name__, name), ""),
            _default(table, field),
            said[name],
        )
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _type(declared: msgspec.inspect.Type) -> str:
    for one in _options_of(declared):
        item = getattr(one, "item_type", None)
        if isinstance(item, msgspec.inspect.StructType):
            return "tables"
        if item is not None:
            return f"a list of {_type(item)}"
    text = _expected(declared).replace(" that is not empty", "")
    return re.sub(r"'(\w+)'", r"`\1`", text)


def _default(table: type, field: msgspec.inspect.Field) -> str:
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None and table.__name__ in _IN_USE:
        used = {one.name: one for one in dataclasses.fields(_IN_USE[table.__name__])}
        if field.encode_name in used:
            value = used[field.encode_name].default
    if value in (msgspec.NODEFAULT, dataclasses.MISSING):
        return "needed"
    if value is None or value == "" or value == {} or value == ():
        return "none"
    one_line = json.dumps(value) if isinstance(value, tuple) else tomli_w.dumps({"x": value})[4:]
    return f"`{one_line.strip()}`"


def variables() -> list[tuple[str, str, str]]:
    """Environment variables: name, the option that wins over it, and meaning."""
    found: dict[str, tuple[str, str]] = {}
    users: dict[str, set[str]] = {}
    for command, option in _options(typer.main.get_command(app), "disinherit"):
        assert isinstance(option.envvar, str)
        users.setdefault(option.envvar, set()).add(command)
        said = re.sub(rf"; {option.envvar} by default", "", option.help or "")
        without = (
            f"; `{option.default}` without it"
            if isinstance(option.default, str) and option.default
            else ""
        )
        found.setdefault(option.envvar, (option.opts[0], _sentence(said) + without))
    rows = []
    for name, (option_name, meaning) in found.items():
        several = len(users[name]) >= _CONNECTED
        where = (
            "of commands that call a coordinator"
            if several
            else "of " + " and ".join(f"`{one}`" for one in sorted(users[name]))
        )
        rows.append((f"`{name}`", f"`{option_name}` {where}", meaning))
    ours = _constants([checkout, datasets])
    rows += [(f"`{name}`", "", meaning) for name, meaning in {**ours, **_SYSTEM}.items()]
    return rows


def _options(command: click.Command, name: str) -> Iterator[tuple[str, click.Option]]:
    """The options of a command, and of those in it, that a variable may give."""
    command = command.load() if isinstance(command, LazyCommand) else command
    for one in command.params:
        if isinstance(one, click.Option) and one.envvar:
            yield name, one
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            yield from _options(found, f"{name} {inner}")


def _constants(modules: Iterable[types.ModuleType]) -> dict[str, str]:
    """The variables that modules declare in constants: name and meaning."""
    found = {}
    for module in modules:
        declared = re.findall(
            r'^\w+_VARIABLE = "(\w+)"\n"""Environment variable: (.+?)"""$',
            inspect.getsource(module),
            re.DOTALL | re.MULTILINE,
        )
        found.update({name: _sentence(meaning) for name, meaning in declared})
    return found


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(page())
