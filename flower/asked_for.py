"""What a run of the ServerApp is to forget, as the configuration of the run says it: JSON.

::

    forget = '{"classes": ["3"]}'
    forget = '{"samples": {"node-0": ["17", "42"]}, "reason": "consent withdrawn"}'
    forget = '{"client": "node-1"}'
"""

import msgspec

from disinherit.common.errors import RequestError
from disinherit.common.settings import Table, check
from disinherit.common.text import load_json

KEY = "forget"
"""Entry of the run's configuration."""

PREFIX = "disinherit: "
"""Beginning of each line that a run prints for people, among those of Flower."""

VALUE = "value "
"""Beginning of a line, after `PREFIX`, that has a part of the outcome as JSON for programs."""


class AskedFor(Table):
    """What is to be forgotten.

    Attributes:
        classes: names of classes.
        samples: owner -> ids of its samples.
        client: an owner that leaves.
        request_id: a permanent id; empty for one that follows from what is asked.
        reason: why, for people.
        hand_down: whether the rounds after the samples are not trained again without them.
    """

    classes: tuple[str, ...] = ()
    samples: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    client: str = ""
    request_id: str = ""
    reason: str = ""
    hand_down: bool = False


def read_asked(text: object) -> AskedFor:
    """Return what a run is to forget.

    Args:
        text: the entry of the run's configuration.

    Raises:
        RequestError: if it is no such JSON.
    """
    what = f'JSON such as {{"classes": ["3"]}} as {KEY!r} in the run\'s configuration'
    try:
        content = load_json(text) if isinstance(text, str) else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RequestError(f"Expected {what}, but got {str(text)!r}.")
    return check(AskedFor, content, what)
