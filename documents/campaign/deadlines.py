"""The month within which a person must be answered: GDPR, article 12(3)."""

import calendar
from datetime import datetime


def answer_due(received: datetime) -> datetime:
    """Return when a person must be told what was done: one month after receipt.

    A month ends on the same day of the next one, or on its last day where there is no such day
    (Regulation 1182/71, article 3(2)(c)).

    Example:
        >>> answer_due(datetime(2027, 1, 31)).date().isoformat()
        '2027-02-28'
    """
    year, month = received.year + received.month // 12, received.month % 12 + 1
    last = calendar.monthrange(year, month)[1]
    return received.replace(year=year, month=month, day=min(received.day, last))
