"""`disinherit samples`: names of training samples, and the files that carry them.

A file of ids has one on each line, in UTF-8.  One of digests is JSON::

    {"models": ["r1"], "salt": "<32 hexadecimal digits>", "digests": ["<64>", ...]}
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Meta

from disinherit.cli.output import print_line, warn_line
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import InputError, RequestError
from disinherit.common.graph.records import check_id
from disinherit.common.settings import Secret, Table, check
from disinherit.common.text import load_json
from disinherit.common.wire.samples import (
    SALT_BYTES,
    SampleDigests,
    check_salt,
    digest_samples,
    same_id,
)

_SHOWN = 20
"""Lines that are named; of the others their number is said."""

app = typer.Typer(
    help="Name training samples for a request, at the owner that knows their ids.",
    no_args_is_help=True,
    suggest_commands=False,
)


@app.command(
    epilog="Example: disinherit samples digest --store /srv/models --model r1 ids.txt > erased.json"
)
def digest(
    ids: Annotated[Path, typer.Argument(help="The ids, one on each line. They stay here.")],
    store: Annotated[
        Path, typer.Option(help="Folder of the owner's models; its samples.key makes the digests.")
    ],
    model: Annotated[
        list[str], typer.Option(help="A model that was trained directly on them. Repeat.")
    ],
    salt: Annotated[
        str | None,
        typer.Option(
            help="32 hexadecimal digits; random by default. The same again gives the same digests."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The owner's agent.toml; its factory opens the models, to name ids of no sample."
        ),
    ] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="With --config: leave out ids of no sample.")
    ] = False,
) -> int:
    """Print salted digests of sample ids, to be submitted with `request submit --samples`."""
    listed = read_ids(ids)
    for name in model:
        check_id(name)
    chosen = check_salt(salt) if salt is not None else secrets.token_hex(SALT_BYTES)
    if not (store / "index.db").exists():
        raise InputError(
            f"Expected the folder of an owner's models at {store}, but there is no index.db in it."
        )
    if ignore_unknown and config is None:
        raise InputError(
            "Expected --config with --ignore-unknown, to know which ids are of samples."
        )
    if config is not None:
        listed = _known(config, store, model, listed, ignore_unknown)
    text = digests_text(model, digest_samples(sample_key(store), chosen, listed.values()))
    for line in text.splitlines():
        print_line(line)
    return 0


def _known(
    config: Path, store: Path, models: list[str], listed: dict[int, str], ignore_unknown: bool
) -> dict[int, str]:
    """Return the ids that are of training samples of every model, with their line numbers."""
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
            f"of {len(listed)} lines are of none: {named}. Correct them, or leave them out with "
            "--ignore-unknown."
        )
    warn_line(f"left out, as they are of no sample: lines {named}")
    return known


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
