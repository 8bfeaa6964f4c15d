"""The mark of a signed log: up to where it was signed, kept beside the key."""

from dataclasses import dataclass
from pathlib import Path

from disinherit.common.audit.canonical import Json, canonical
from disinherit.common.errors import StoreError
from disinherit.common.files import write_private
from disinherit.common.text import load_json


@dataclass(frozen=True, slots=True)
class Mark:
    """The signed part of a log.

    Attributes:
        entries: the number of its entries.
        head: hash of the last entry; `""` if empty.
        epoch: the epoch of the history (`disinherit.server.store.history`).
    """

    entries: int
    head: str
    epoch: int = 0


def mark_file(key: Path) -> Path:
    """Return the file of a key's mark, beside the key."""
    return key.with_name(f"{key.name}.head")


def read_mark(path: Path) -> Mark | None:
    """Return the mark in a file; `None` if there is no file.

    Raises:
        StoreError: if it cannot be read or is damaged.
    """
    try:
        values = load_json(path.read_bytes())
        return Mark(int(values["entries"]), str(values["head"]), int(values["epoch"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"Expected in {str(path)!r} up to where the log was signed, but: {error}. Restore it "
            "with the key beside it, or remove it and run: disinherit confirm history."
        ) from None


def write_mark(path: Path, mark: Mark) -> None:
    """Write a mark to a file.

    Raises:
        StoreError: if it cannot be written.
    """
    values: dict[str, Json] = {"entries": mark.entries, "head": mark.head, "epoch": mark.epoch}
    try:
        write_private(path, canonical(values))
    except OSError as error:
        raise StoreError(
            f"Expected to keep in {str(path)!r} up to where the log was signed, but: "
            f"{error.strerror}. Nothing was signed."
        ) from error
