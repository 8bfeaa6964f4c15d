"""`disinherit coverage`: affected versions of a request, with state and reason."""

from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import Format, FormatOption, as_time, print_json
from disinherit.cli.tables import Cell, print_table, state_text
from disinherit.common.wire.remedies import remedy_word
from disinherit.v1 import coordinator_pb2 as pb

EXAMPLES = "Example: disinherit coverage forget-0123456789ab --format json"

_DONE = ("verified", "exempt")


@connected
def coverage(
    connection: Connection,
    request_id: RequestId,
    form: FormatOption = Format.TABLE,
) -> int:
    """List every affected version; exit code 0 if all have forgotten or are exempt, else 1."""
    request = pb.GetCoverageRequest(id=request_id)
    pages = connection.pages(lambda stub: stub.GetCoverage, request)
    covered = [one for page in pages for one in page.models]
    if form is Format.JSON:
        print_json(
            [
                {
                    "model": one.model_id,
                    "owner": one.owner,
                    "state": one.state,
                    "reason": one.reason,
                    "successor": one.successor_id or None,
                    "digest_before": one.digest_before,
                    "digest_after": one.digest_after or None,
                    "updated": as_time(one.updated_us),
                    "wave": one.wave + 1,
                    "destroy": as_time(one.destroy_us),
                    "destroyed": as_time(one.destroyed_us),
                    **({"remedy": remedy_word(one.remedy)} if one.remedy else {}),
                }
                for one in covered
            ]
        )
    else:
        wide = form is Format.WIDE
        titles = ["model", "state", "owner", "remedy", "reason"]
        more = ["became", "updated", "destroy", "destroyed"] if wide else []
        rows: list[list[Cell]] = []
        for one in covered:
            row: list[Cell] = [
                one.model_id,
                state_text(one.state),
                one.owner,
                remedy_word(one.remedy),
            ]
            times = map(as_time, (one.updated_us, one.destroy_us, one.destroyed_us))
            rows.append([*row, one.reason, *([one.successor_id, *times] if wide else [])])
        print_table([*titles, *more], rows, ("model", "state", "became"))
    return 0 if all(one.state in _DONE for one in covered) else 1
