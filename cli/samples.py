"""`disinherit samples`: name training samples for a request, where their ids are known."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import print_line, warn_line
from disinherit.cli.sample_files import digests_text, read_ids
from disinherit.client.agent.config import read_config
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import InputError
from disinherit.common.graph.records import check_id
from disinherit.common.wire.samples import SALT_BYTES, check_salt, digest_samples

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
