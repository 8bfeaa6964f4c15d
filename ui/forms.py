"""Forms: fields of a posted form, within the bounds that the headers were checked for."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from disinherit.common.errors import InputError
from disinherit.ui.protection import LARGEST_BODY

_TYPE = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; of those with one name, the last.

    Raises:
        InputError: if it is no form, or too large.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != _TYPE:
        raise InputError(f"Expected a form as {_TYPE}, but got another type.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise InputError(f"Expected a form of at most {LARGEST_BODY} bytes, but got more.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise InputError(f"Expected the fields of a form, but: {error}.") from None
    return dict(pairs)
