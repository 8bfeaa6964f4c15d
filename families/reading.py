"""Bounded reads of files from outside: text, JSON and YAML, one line for each fault.

A file of a model folder may be anything.  So nothing is read beyond its bound, YAML makes plain
values only and has no aliases, and links that lead out of the imported folder are not followed.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from disinherit.common.errors import DataError
from disinherit.common.limits import NESTING
from disinherit.common.text import load_json, one_line

MOST_TEXT = 4 * 2**20
"""Bytes of one card, config or lock file."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FEW = 200


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, lies in a folder that is resolved."""
    try:
        return path.resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):  # a broken link, or a circle of links
        return False


def read_start(path: Path, most: int = MOST_TEXT) -> tuple[bytes, bool]:
    """Return the first bytes of a file, and whether these are all.

    Args:
        path: the file.
        most: most bytes.

    Raises:
        DataError: if it is no regular file or unreadable.
    """
    try:
        # Not blocking, since opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DataError(f"Expected a regular file, but got something else as {path.name}.")
            data = file.read(most + 1)
    except OSError as error:
        raise DataError(f"Expected a readable {path.name}, but: {error.strerror}.") from None
    return data[:most], len(data) <= most


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        most: most bytes.

    Raises:
        DataError: if it is no regular file, too large, unreadable or no UTF-8.
    """
    data, whole = read_start(path, most)
    if not whole:
        raise DataError(f"Expected at most {most:,} bytes in {path.name}, but got more.")
    return decode(data, path.name)


def decode(data: bytes, where: str) -> str:
    """Return the text of bytes.

    Raises:
        DataError: if they are no UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8 in {where}, but: {error.reason}.") from None


def read_json(path: Path, most: int = MOST_TEXT) -> Mapping[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: the file.
        most: most bytes.

    Raises:
        DataError: as `read_text`, or if it holds no JSON object.
    """
    try:
        value = load_json(read_text(path, most))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected JSON in {path.name}, but {one_line(str(error), _FEW)}") from None
    return as_table(value, path.name)


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Return the table in a YAML file.

    Raises:
        DataError: as `read_text`, or if `parse_yaml` refuses it.
    """
    return parse_yaml(read_text(path), path.name)


def parse_yaml(text: str, where: str) -> Mapping[str, Any]:
    """Return the table in a YAML text, of plain values.

    Args:
        text: the text.
        where: name of its file, for errors.

    Raises:
        DataError: if it is no YAML or no table, is nested too deeply, repeats a key, or has aliases
            or values of programs.
    """
    try:
        _check_events(text, where)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            _check_keys(node, where)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except DataError:
        raise
    # PyYAML raises more than its own errors: for dates, huge numbers, odd keys, control characters.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"Expected YAML in {where}, but {one_line(str(error), _FEW)}.") from None
    return as_table({} if value is None else value, where)


def as_table(value: object, where: str) -> Mapping[str, Any]:
    """Return a value that is a table with texts as keys.

    Raises:
        DataError: if it is none.
    """
    if not isinstance(value, dict):
        raise DataError(f"Expected a table in {where}, but got {type(value).__name__}.")
    return {str(key): one for key, one in value.items()}


def table_of(value: object) -> Mapping[str, Any]:
    """Return a value if it is a table, or an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: object) -> list[str]:
    """Return the texts of a text or a list; other values are left out."""
    listed = value if isinstance(value, list) else [value]
    return [one.strip() for one in listed if isinstance(one, str) and one.strip()]


def _check_events(text: str, where: str) -> None:
    """Refuse aliases, which multiply, and deep nesting, which composing YAML recurses into."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            name = one_line(event.anchor, 40)
            raise DataError(
                f"Expected YAML without aliases in {where}, but got *{name} in line "
                f"{event.start_mark.line + 1}. Write there what &{name} stands for, or name the "
                "parents in an edge list."
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > NESTING.most:
            raise DataError(
                f"Expected at most {NESTING.most} levels of values in {where}, but got more."
            )


def _check_keys(node: yaml.Node | None, where: str) -> None:
    """Refuse a repeated key: YAML readers differ in which value they take."""
    pending = [] if node is None else [node]
    for one in pending:  # grows during the loop
        if isinstance(one, yaml.SequenceNode):
            pending += one.value
        elif isinstance(one, yaml.MappingNode):
            seen: set[str] = set()
            for key in (key.value for key, _ in one.value if isinstance(key, yaml.ScalarNode)):
                if key in seen:
                    raise DataError(f"Expected each key once in {where}, but got {key!r} again.")
                seen.add(key)
            pending += [value for _, value in one.value]


def find_below(folder: Path, name: str) -> list[Path]:
    """Return the files and folders of a name in a folder and below it, without following links."""
    return sorted(
        Path(place) / name
        for place, folders, files in os.walk(folder)
        if name in (*folders, *files) and not (Path(place) / name).is_symlink()
    )
