"""The reference of messages, made from the schema: run as a module, it writes the page."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from tests import ROOT
from tests.support.reference import one_line, table, words

PAGE = ROOT / "docs" / "messages.md"
PROTOS = ROOT / "protos"
_PACKAGE = ".disinherit.v1."
_HEAD = """# Messages

What travels between owners, coordinator and operators, by `disinherit.v1`: the calls of its
services and every field. Numbers are those of the wire; times are microseconds since the epoch
(`_us`). Over Flower the same messages are in a record of bytes
([why](adr/0002-one-schema-inside-flower-messages.md)). How large each may be: [limits](limits.md).

This page is made from `protos/` by `make reference`.
"""
_FIRST_TO_LAST = ("coordinator", "agents", "unlearning", "graph")
_SYNTAX, _MESSAGE, _ENUM, _SERVICE, _INSIDE = 12, 4, 5, 6, 2
"""Numbers of the parts of a file in paths of comments; members of a part are number 2."""

Path_ = tuple[int, ...]


def page() -> str:
    """The page as it should be."""
    return _HEAD + "".join(_file(one) for one in schema())


def schema() -> Sequence[FileDescriptorProto]:
    """The files of the schema with their comments."""
    names = [f"disinherit/v1/{name}.proto" for name in _FIRST_TO_LAST]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "schema"
        words = [f"-I{PROTOS}", f"--descriptor_set_out={out}", "--include_source_info", *names]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *words], check=True)
        found = FileDescriptorSet.FromString(out.read_bytes())
    by_name = {one.name: one for one in found.file}
    return [by_name[name] for name in names]


class _Comments:
    """What is said above the parts of a file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._said: dict[Path_, str] = {}
        self.about = ""
        for one in file.source_code_info.location:
            if tuple(one.path) == (_SYNTAX,):
                self.about = one_line(one.leading_comments)
            self._said[tuple(one.path)] = one_line(one.leading_comments or one.trailing_comments)

    def of(self, *path: int) -> str:
        return self._said.get(path, "").replace("<", "\\<")


def _file(file: FileDescriptorProto) -> str:
    said = _Comments(file)
    parts = [f"\n## `{Path(file.name).name}`\n\n{said.about}\n"]
    for place, service in enumerate(file.service):
        parts.append(_calls(service, said, place))
    for place, message in enumerate(file.message_type):
        parts.append(_fields(message, said, (_MESSAGE, place)))
    for place, enum in enumerate(file.enum_type):
        parts.append(_values(enum, said, (_ENUM, place)))
    return "".join(parts)


def _calls(service: ServiceDescriptorProto, said: _Comments, place: int) -> str:
    rows = (
        (
            f"`{one.name}`",
            f"{_stream(one.client_streaming)}{_link(one.input_type)} → "
            f"{_stream(one.server_streaming)}{_link(one.output_type)}",
            said.of(_SERVICE, place, _INSIDE, number),
        )
        for number, one in enumerate(service.method)
    )
    about = said.of(_SERVICE, place)
    return (
        f"\n### Service `{service.name}`\n\n{about}\n\n{table(('call', 'messages', 'what'), rows)}"
    )


def _fields(message: DescriptorProto, said: _Comments, path: Path_) -> str:
    about = said.of(*path)
    lines = [f"\n### `{message.name}`\n", f"\n{about}\n" if about else ""]
    entries = {one.name: one for one in message.nested_type if one.options.map_entry}
    assert len(entries) == len(message.nested_type), "messages within messages have no section"
    assert not message.enum_type
    rows = [
        (f"`{one.name}`", f"{one.number}", _kind(one, entries), said.of(*path, _INSIDE, place))
        for place, one in enumerate(message.field)
    ]
    lines.append(
        f"\n{table(('field', 'number', 'type', 'meaning'), rows)}" if rows else "\nNo fields.\n"
    )
    return "".join(lines)


def _values(enum: EnumDescriptorProto, said: _Comments, path: Path_) -> str:
    about = said.of(*path)
    rows = (
        (f"`{one.name}`", f"{one.number}", said.of(*path, _INSIDE, place))
        for place, one in enumerate(enum.value)
    )
    head = f"\n### `{enum.name}`\n" + (f"\n{about}\n" if about else "")
    return f"{head}\n{table(('value', 'number', 'meaning'), rows)}"


def _kind(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"{_plain(entry.field[0])} → {_plain(entry.field[1])}"
    many = field.label == FieldDescriptorProto.LABEL_REPEATED
    optional = " (optional)" if field.proto3_optional else ""
    return f"{'list of ' if many else ''}{_plain(field)}{optional}"


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return words(FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower())


def _link(type_name: str) -> str:
    name = type_name.removeprefix(_PACKAGE)
    return f"[`{name}`](#{name.lower()})"


def _stream(many: bool) -> str:
    return "stream of " if many else ""


def all_names() -> Iterator[str]:
    """The names of all messages, enumerations and services of the schema."""
    for file in schema():
        yield from (one.name for one in file.message_type)
        yield from (one.name for one in file.enum_type)
        yield from (one.name for one in file.service)


if __name__ == "__main__":
    PAGE.write_text(page())
