"""Arguments of commands about one request or version, checked before a coordinator is asked."""

from typing import Annotated

import typer

from disinherit.cli.completion import complete_models, complete_requests
from disinherit.common.errors import InputError
from disinherit.common.graph.identifiers import check_id


def _request(id: str) -> str:
    return check_id(id, "id of a request", InputError) if id else id


def check_model(id: str) -> str:
    """Return the id of a version, if it is a well-formed one; a callback."""
    return check_id(id, "id of a version", InputError)


RequestId = Annotated[
    str,
    typer.Argument(
        metavar="REQUEST",
        help="Id of the request.",
        autocompletion=complete_requests,
        callback=_request,
    ),
]

ModelId = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Id of a version.",
        autocompletion=complete_models,
        callback=check_model,
    ),
]
