"""Files that name samples: ids at their owner, and salted digests for everybody else.

A file of ids has one on each line, in UTF-8.  One of digests is JSON::

    {"models": ["r1"], "salt": "<32 hexadecimal digits>", "digests": ["<64>", ...]}
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from disinherit.common.errors import InputError, RequestError
from disinherit.common.graph.records import check_id
from disinherit.common.settings import Secret, Table, check
from disinherit.common.text import load_json
from disinherit.common.wire.samples import SampleDigests, same_id


class _Named(Table):
    models: Annotated[tuple[str, ...], Meta(min_length=1)]
    salt: Secret
    digests: Annotated[tuple[Secret, ...], Meta(min_length=1)]  # where ids are, they name people


def read_ids(path: Path) -> dict[int, str]:
    """Return the sample ids of a file with their line numbers; empty lines count for nothing.

    A byte-order mark, line ends of any system, blanks around an id and the quotes of a spreadsheet
    are no part of it.

    Raises:
        InputError: if it cannot be read, or has none.
    """
    lines = enumerate(_read(path, "sample ids").splitlines(), start=1)
    ids = {number: id for number, line in lines if (id := _unquoted(same_id(line)))}
    if not ids:
        raise InputError(f"Expected a sample id on each line of {path}, but got none.")
    return ids


def _unquoted(text: str) -> str:
    """Return what stands between the double quotes of a spreadsheet's cell, or all of it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return same_id(text[1:-1].replace('""', '"'))
    return text


def digests_text(models: Sequence[str], named: SampleDigests) -> str:
    """Return the content of a file of digests.

    Args:
        models: the models that were trained on the samples directly.
        named: the samples.
    """
    content = {"models": list(models), "salt": named.salt, "digests": list(named.digests)}
    return json.dumps(content, indent=1)


def read_all_samples(paths: Sequence[Path], ignore_unknown: bool) -> dict[str, SampleDigests]:
    """Return model -> the samples that files of digests name there.

    Args:
        paths: the files.
        ignore_unknown: whether samples that are not a model's are left out.

    Raises:
        InputError: if a file cannot be read, or is none, or two name the same model.
    """
    named: dict[str, SampleDigests] = {}
    for path in paths:
        for model, samples in read_samples(path).items():
            if model in named:
                raise RequestError(
                    f"Expected one file of digests for each model, but {path} is a second one for "
                    f"{model!r}. Digest all of its samples into one file."
                )
            named[model] = replace(samples, ignore_unknown=ignore_unknown)
    return named


def read_samples(path: Path) -> dict[str, SampleDigests]:
    """Return model -> the samples that a file of digests names there.

    Raises:
        InputError: if it cannot be read, or is none.
    """
    text = _read(path, "digests of samples")
    try:
        content = load_json(text)
    except ValueError:
        content = None
    found = check(_Named, content, f"{path}, as `disinherit samples digest` writes it")
    try:
        named = SampleDigests(found.salt, found.digests)
    except RequestError as error:
        raise RequestError(f"In {path}: {error}") from error
    return {check_id(model): named for model in found.models}


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Expected {what} in {path}, but: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Expected {what} in UTF-8 in {path}, but: {error}.") from error
