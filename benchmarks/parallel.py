"""A campaign over 1 to 200 clients with 2 models each: time per client, and who spends it.

request      CPU seconds from `submit` until every model is applied, as in `request.py`
per client   of these, milliseconds
coordinator  its share; the rest is the owners', who have stores, syncs and digests of their own

Clients take turns in one process, so that every second is counted. In the simulation engine each
core runs one client at a time with one thread.
"""

import tempfile
from pathlib import Path

from measuring import Claim, Figures, arguments, report
from request import Fleet

CLIENTS = (1, 10, 50, 200)
MODELS = 2


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows: list[Figures] = []
    for clients in (1, 2) if options.reduced else CLIENTS:
        with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
            fleet = Fleet(Path(folder), clients, MODELS)
            fleet.request()
            spent = fleet.request()
        rows.append(
            {
                "clients": clients,
                "request": spent["request"],
                "per client, ms": 1000 * spent["request"] / clients,
                "coordinator, %": 100 * spent["of that, coordinator"] / spent["request"],
                "coordinator per model, ms": 1000
                * spent["of that, coordinator"]
                / (clients * MODELS),
            }
        )
    some, most = rows[1], rows[-1]
    what = f"time per client, {most['clients']} clients / {some['clients']}"
    growth = most["per client, ms"] / some["per client, ms"]
    claims = [Claim(6, what, growth, at_most=1.2)]
    report(options, "parallel", "A campaign: CPU seconds", rows, claims)


if __name__ == "__main__":
    main()
