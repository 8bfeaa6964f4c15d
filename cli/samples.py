"""`disinherit samples`: name training samples for a request, where their ids are known."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import print_line

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
) -> int:
    """Print salted digests of sample ids, to be submitted with `request submit --samples`."""
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.cli.sample_files import digests_text, read_ids
    from disinherit.client.samples import sample_key
    from disinherit.common.errors import InputError
    from disinherit.common.records import check_id
    from disinherit.common.sample_digests import SALT_BYTES, check_salt, digest_samples

    listed = read_ids(ids)
    for name in model:
        check_id(name)
    chosen = check_salt(salt) if salt is not None else secrets.token_hex(SALT_BYTES)
    if not (store / "index.db").exists():
        raise InputError(
            f"Expected the folder of an owner's models at {store}, but there is no index.db in it."
        )
    text = digests_text(model, digest_samples(sample_key(store), chosen, listed))
    for line in text.splitlines():
        print_line(line)
    return 0
