"""`disinherit flower`: requests to forget in a Flower app that has trained."""

import json
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import WHAT, Commands, options_in
from disinherit.cli.output import (
    Format,
    FormatOption,
    print_done,
    print_json,
    print_line,
    warn_line,
)
from disinherit.common.errors import RequestError

app = Commands("Forget in a Flower app that has trained.")
_what = options_in(WHAT)


@app.callback()
def _flower() -> None: ...


@app.command(
    epilog="Examples:\n\n"
    "disinherit flower forget my-app --class 3\n\n"
    "disinherit flower forget my-app hospital --samples node-0:17,42 --reason 'withdrawn'\n\n"
    "disinherit flower forget my-app hospital --client node-1"
)
def forget(
    folder: Annotated[Path, typer.Argument(help="Folder of the app, with its pyproject.toml.")],
    connection: Annotated[
        str, typer.Argument(help="Connection to the SuperLink; Flower's default without.")
    ] = "",
    classes: Annotated[
        list[str] | None, _what("--class", help="Class to forget. Repeat.", metavar="NAME")
    ] = None,
    samples: Annotated[
        list[str] | None,
        _what(
            metavar="OWNER:IDS",
            help="Samples of an owner, such as node-0:17,42: positions in its data set, unless its "
            "data say more. Repeat for other owners.",
        ),
    ] = None,
    client: Annotated[
        str, _what(metavar="OWNER", help="Owner that leaves with all that it contributed.")
    ] = "",
    id: Annotated[
        str, typer.Option(help="Id of the request; by default made of what it asks.")
    ] = "",
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    hand_down: Annotated[
        bool,
        typer.Option(
            "--hand-down",
            help="For samples: do not train later rounds again without them, but hand the change "
            "down; one step, which often cannot be shown to suffice.",
        ),
    ] = False,
    run_config: Annotated[
        str, typer.Option(help="As of `flwr run --run-config`, where training had it.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Forget classes, samples or an owner in all that the app has trained.

    It is a run of Flower with the app's own ClientApp on the nodes. Asked again, it goes on with
    nodes that were away, and does nothing twice. Exit code 1 if not every model has forgotten.
    """
    asked = {
        "classes": classes or [],
        "samples": _read_samples(samples or []),
        "client": client,
        "request_id": id,
        "reason": reason,
        "hand_down": hand_down,
    }
    if sum(bool(asked[what]) for what in ("classes", "samples", "client")) != 1:
        raise RequestError(
            "Expected one of --class, --samples and --client, to say what to forget."
        )
    # Imported here because torch and Flower take seconds, which --help should not.
    from disinherit.flower.forget_run import run_forget

    given = json.dumps({name: value for name, value in asked.items() if value})
    say = warn_line if form is Format.JSON else print_line
    found = run_forget(folder, connection, given, say, warn_line, run_config)
    if form is Format.JSON:
        print_json(found.values)
    return 0 if found.done else 1


@app.command(epilog="Example: disinherit flower retire me.my-app node-1")
def retire(
    name: Annotated[str, typer.Argument(help="Name of the app: that of its folder.")],
    owner: Annotated[str, typer.Argument(help="Owner that has left.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Take the models of an owner that has left out of use, after its request was carried out.

    On its node's machine it deletes them. On the server's it marks them as retired in the records.
    """
    from disinherit.flower.retiring import find_left
    from disinherit.flower.retiring import retire as retire_left

    left = find_left(name, owner)
    if left.models is not None and not yes:
        typer.confirm(f"Delete {left.models}?", abort=True, err=form is Format.JSON)
    retired = retire_left(left)
    records, models = (None if one is None else str(one) for one in (left.records, left.models))
    print_done(
        form,
        {"records": records, "retired": retired, "deleted": models},
        "the server's records are on another machine: run this there, too"
        if records is None
        else f"retired in {records}: {', '.join(retired) or 'none, all were before'}",
        f"models of {owner} are on its node's machine: run this there, too"
        if models is None
        else f"deleted {models}",
    )
    return 0


def _read_samples(texts: list[str]) -> dict[str, list[str]]:
    """Return owner -> ids of its samples.

    Raises:
        RequestError: if a text is not an owner with ids.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        owner, _, listed = text.partition(":")
        ids = [id.strip() for id in listed.split(",") if id.strip()]
        if not owner or not ids:
            raise RequestError(
                f"Expected samples as an owner and ids, such as node-0:17,42, but got {text!r}."
            )
        found.setdefault(owner, []).extend(ids)
    return found
