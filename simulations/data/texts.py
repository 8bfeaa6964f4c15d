"""Labelled text: a table of texts and labels, and texts as ids of hashed character n-grams."""

import math
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.extras import importing

TEXT_SUFFIXES = (".csv", ".parquet")
"""File name endings of the tables that can be read."""

NGRAM = 3
"""Characters per n-gram."""

LENGTH = 256
"""Ids per text, `L`: about as many characters; what is longer is cut."""

VOCABULARY = 8192
"""Number of different ids, the padding id 0 included."""


def encode_texts(texts: Sequence[str]) -> Tensor:
    """Turn texts into ids of their character n-grams.

    Case, compatibility forms and runs of white space are evened out first; one space is set before
    and after, so that beginnings and ends of words have n-grams of their own. Id 0 is padding. Ids
    come from a CRC-32, not from Python's `hash`, which differs from process to process.

    Args:
        texts: `N` texts.

    Returns:
        Ids `[N, LENGTH]` as int64 in [0, VOCABULARY).

    Example:
        >>> encode_texts(["Abc", " ABC  "])[:, :4].tolist()
        [[2077, 2802, 3208, 0], [2077, 2802, 3208, 0]]
    """
    known: dict[str, int] = {}
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in enumerate(texts):
        even = f" {' '.join(unicodedata.normalize('NFKC', text).lower().split())} "
        grams = [even[i : i + NGRAM] for i in range(min(len(even) - NGRAM + 1, LENGTH))]
        for gram in grams:
            if gram not in known:
                known[gram] = 1 + zlib.crc32(gram.encode(errors="replace")) % (VOCABULARY - 1)
        ids[row, : len(grams)] = torch.tensor([known[gram] for gram in grams], dtype=torch.int64)
    return ids


def read_labelled_texts(path: Path) -> tuple[list[str], list[str]]:
    """Read the columns `text` and `label` of a table.

    Args:
        path: a `.csv` file (UTF-8, with a header) or a `.parquet` file.

    Returns:
        `N` texts and `N` labels. Labels become strings; whole numbers are written without a
        fraction.

    Raises:
        DataError: if the file cannot be read, lacks a column or rows, or has a row without text or
            without a label.
    """
    frame = _read_frame(path)
    missing = [column for column in ("text", "label") if column not in frame.columns]
    if missing:
        raise DataError(
            f"Expected the columns 'text' and 'label' in {path}, but got "
            f"{[str(column) for column in frame.columns]} without {missing}."
        )
    if len(frame) == 0:
        raise DataError(f"Expected rows in {path}, but got a table without any.")
    return (
        [_text(value, row, path) for row, value in enumerate(frame["text"], start=1)],
        [_label(value, row, path) for row, value in enumerate(frame["label"], start=1)],
    )


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, ordered as numbers if all are whole numbers.

    Example:
        >>> sort_labels(["10", "9", "10"]), sort_labels(["b", "10", "9"])
        (('9', '10'), ('10', '9', 'b'))
    """
    distinct = sorted(set(labels))
    if all(label.isascii() and label.isdigit() and len(label) < 19 for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def _read_frame(path: Path) -> Any:
    with importing(f"table {path}", DataError):
        import pandas as pd
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except ImportError as error:
        raise DataError(
            f"Expected a Parquet engine to read {path}, but got none. Run `pip install pyarrow` "
            f"or give the table as .csv."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"Expected a readable table at {path}, but got: {error}.") from error
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas takes surplus leading cells for an index and so shifts every column, silently.
        raise DataError(
            f"Expected as many cells in each row of {path} as in its header, but got more. Put "
            f"texts with commas in double quotes."
        )
    return frame


def _text(value: object, row: int, path: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"Expected a text in row {row} of {path} (the header not counted), but got {value!r}."
        )
    return value


def _label(value: object, row: int, path: Path) -> str:
    label = str(value).strip()
    try:
        number: float | None = float(label)
    except ValueError:
        number = None
    usable = value is not None and label not in ("", "<NA>", "NaT")
    if not usable or (number is not None and not math.isfinite(number)):
        raise DataError(
            f"Expected a label in row {row} of {path} (the header not counted), but got {value!r}."
        )
    if isinstance(value, (float, np.floating)) and number is not None and number.is_integer():
        return str(int(number))
    return label
