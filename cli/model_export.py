"""`disinherit model export`: the weights of a version in a file, from the folder of its owner."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.checked import file_to_write
from disinherit.cli.output import Format, FormatOption, print_done
from disinherit.common.errors import InputError

EXPORT_EXAMPLES = (
    "Examples:\n\n"
    "disinherit model export state/models --id gait --owner anna --out gait.safetensors\n\n"
    "disinherit model export state/models --id gait --owner anna --as-it-was --out old.safetensors"
)


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of the owner's models (ModelStore).")],
    model_id: Annotated[
        str, typer.Option("--id", help="The model; by the id that it was registered under, too.")
    ],
    owner: Annotated[str, typer.Option(help="Owner of the models.")],
    out: Annotated[Path, file_to_write(help="File of weights to write, safetensors.")],
    as_it_was: Annotated[
        bool,
        typer.Option(
            "--as-it-was", help="This very version, not the one that requests made of it."
        ),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the weights of a model as it is now, after all that it forgot; on its owner's machine.

    The files it was trained into, such as your own checkpoint, still know what was forgotten.
    """
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.client.store.store import ModelStore
    from disinherit.common.tensors.checkpoints import save_checkpoint

    if not (folder / "index.db").is_file():
        raise InputError(
            f"Expected the folder of an owner's models, but {folder} has no index.db. It is the "
            "one that the owner's ModelStore was opened with."
        )
    with ModelStore(folder, owner) as store:
        record = store.record(model_id) if as_it_was else store.present(model_id)
        save_checkpoint(out, store.weights(record.id))
    print_done(form, {"model": record.id, "out": str(out)}, f"{record.id}: {out}")
    return 0
