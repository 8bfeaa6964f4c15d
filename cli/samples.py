"""`disinherit samples`: digests of sample ids, and files of ids and digests.

A file of ids has one id on each line, in UTF-8.  A file of digests is JSON::

    {"models": ["r1"], "salt": "<32 hexadecimal digits>", "digests": ["<64>", ...]}
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import print_line, warn_line
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import InputError, RequestError
from disinherit.common.graph.identifiers import check_id
from disinherit.common.wire.samples import (
    SALT_BYTES,
    SampleDigests,
    check_salt,
    digest_samples,
    read_named,
    same_id,
)

_SHOWN = 20
"""Most lines that are listed; the rest is counted."""

app = Commands("Make digests of sample ids for a request; on the owner's machine.")


@app.command(
    epilog="Example: disinherit samples digest --store /srv/models --model r1 ids.txt > erased.json"
)
def digest(
    ids: Annotated[Path, typer.Argument(help="File of ids, one on each line. The ids stay here.")],
    store: Annotated[
        Path,
        typer.Option(help="Folder of the owner's models, with the key samples.key."),
    ],
    model: Annotated[
        list[str], typer.Option(help="A model that was trained directly on them. Repeat.")
    ],
    salt: Annotated[
        str | None,
        typer.Option(
            help="32 hexadecimal digits; random by default. The same salt gives the same digests."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The owner's agent.toml; its factory opens the models, to find unknown ids."
        ),
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="With --config: leave out unknown ids.")
    ] = False,
) -> int:
    """Print salted digests of sample ids for `request submit --samples`."""
    listed = read_ids(ids)
    for name in model:
        check_id(name)
    chosen = check_salt(salt) if salt is not None else secrets.token_hex(SALT_BYTES)
    if not (store / "index.db").exists():
        raise InputError(
            f"Expected the folder of an owner's models at {store}, but it has no index.db."
        )
    if ignore_unknown and config is None:
        raise InputError("Expected --config with --ignore-unknown, to find the unknown ids.")
    if config is not None:
        listed = _known(config, store, model, listed, ignore_unknown)
    text = digests_text(model, digest_samples(sample_key(store), chosen, listed.values()))
    for line in text.splitlines():
        print_line(line)
    return 0


def _known(
    config: Path, store: Path, models: list[str], listed: dict[int, str], ignore_unknown: bool
) -> dict[int, str]:
    """Return line number -> id, for the ids of training samples of every model."""
    # Imported here because torch takes seconds, and only a factory opens models.
    from disinherit.client.agent.agent import load_factory
    from disinherit.client.agent.config import read_config
    from disinherit.client.privacy.samples import unknown_ids

    with load_factory(read_config(config))() as owner:
        if owner.store.root.resolve() != store.resolve():
            raise InputError(
                f"Expected the factory in {config} to open the models in {store}, but it opens "
                f"those in {owner.store.root}."
            )
        unknown = {
            sample
            for model in models
            for sample in unknown_ids(owner, owner.store.record(model), listed.values())
        }
    lines = [f"{number} ({id!r})" for number, id in listed.items() if id in unknown]
    known = {number: id for number, id in listed.items() if id not in unknown}
    if not lines:
        return known
    named = ", ".join(lines[:_SHOWN]) + (
        f" and {len(lines) - _SHOWN} more" if lines[_SHOWN:] else ""
    )
    if not ignore_unknown or not known:
        raise InputError(
            f"Expected ids of training samples of {', '.join(models)}, but those of {len(lines)} "
            f"of {len(listed)} lines are unknown: {named}. Correct them, or leave them out with "
            "--ignore-unknown."
        )
    warn_line(f"left out, as no sample has these ids: lines {named}")
    return known


def read_ids(path: Path) -> dict[int, str]:
    """Return line number -> sample id of a file; empty lines are skipped.

    Byte-order marks, line ends of any system, blanks around an id and the quotes of a spreadsheet
    are removed.

    Raises:
        InputError: if the file cannot be read or has no ids.
    """
    lines = enumerate(_read(path, "sample ids").splitlines(), start=1)
    ids = {number: id for number, line in lines if (id := _unquoted(same_id(line)))}
    if not ids:
        raise InputError(f"Expected a sample id on each line of {path}, but got none.")
    return ids


def _unquoted(text: str) -> str:
    """Return a text without the double quotes of a spreadsheet's cell."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return same_id(text[1:-1].replace('""', '"'))
    return text


def digests_text(models: Sequence[str], named: SampleDigests) -> str:
    """Return the content of a file of digests.

    Args:
        models: models that were trained on the samples directly.
        named: digests of the samples.
    """
    content = {"models": list(models), "salt": named.salt, "digests": list(named.digests)}
    return json.dumps(content, indent=1)


def read_all_samples(paths: Sequence[Path], ignore_unknown: bool) -> dict[str, SampleDigests]:
    """Return model -> sample digests, read from files.

    Args:
        paths: the files of digests.
        ignore_unknown: whether owners leave out samples that a model was not trained on.

    Raises:
        InputError: if a file cannot be read or is invalid, or two files name the same model.
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
    """Return model -> sample digests, read from one file.

    Raises:
        InputError: if the file cannot be read or is invalid.
    """
    return read_named(_read(path, "digests of samples"), str(path))


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Expected {what} in {path}, but: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"Expected {what} in UTF-8 in {path}, but: {error}.") from error
