"""Failures as one line for the coordinator.

What an owner's own code raises (a data loader, a network) can be of any type.  It must not spoil
the other models of a message, so handlers catch it per model, say it here, and go on.

Nor must it leave the owner: what a loader says may name a file, and a file's name a person.  So
whoever asked gets the type of such an error and a reference, under which the owner's log has all of
it.  Only what Disinherit itself says is answered as it is.
"""

import logging
import secrets

from disinherit.common.errors import DisinheritError

_log = logging.getLogger(__name__)


def explain(error: Exception, doing: str) -> str:
    """Return the reason of a failure for whoever asked, and log all of one that nobody foresaw.

    Args:
        error: what was raised.
        doing: what was tried, to follow "Expected to".

    Returns:
        One line, without a word of what other code than Disinherit's said.

    Example:
        >>> from disinherit.common.errors import FisherError
        >>> explain(FisherError("Expected values >= 0, but got -1."), "unlearn in model 'm'")
        'Expected values >= 0, but got -1.'
    """
    if isinstance(error, DisinheritError) and not error.said:
        return one_line(error)
    reference = secrets.token_hex(4)
    _log.error("Failed to %s (reference %s)", doing, reference, exc_info=error)
    if isinstance(error, DisinheritError):
        own = " ".join(error.own.split())
    else:
        own = f"Expected to {doing}, but got {type(error).__name__}"
    return f"{own}. The owner's log has the reason under reference {reference}."


def one_line(error: Exception) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())
