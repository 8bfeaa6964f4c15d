"""The argument of every command about one request."""

from typing import Annotated

import typer

from disinherit.cli.completion import complete_requests

RequestId = Annotated[
    str,
    typer.Argument(metavar="REQUEST", help="Id of the request.", autocompletion=complete_requests),
]
