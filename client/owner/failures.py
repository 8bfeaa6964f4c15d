"""Failures as one line for the coordinator.

An owner's own code (a data loader, a network) can raise any type of error.  One model's error must
not affect the others in a message, so handlers catch it per model and report it.

It must not leave the owner either: its message may contain a file name, and that a person's name.
So the coordinator receives only the error's type and a reference; the owner's log has the details.
Messages of Disinherit itself are sent unchanged.
"""

import logging
import secrets

from disinherit.common.errors import DisinheritError

_log = logging.getLogger(__name__)


def explain(error: Exception, doing: str) -> str:
    """Return the reason of a failure for the coordinator, and log unexpected errors in full.

    Args:
        error: the error.
        doing: the attempted action, to follow "Expected to".

    Returns:
        One line, without any message of foreign code.

    Example:
        >>> from disinherit.common.errors import FisherError
        >>> explain(FisherError("Expected values >= 0, but got -1."), "unlearn in model 'm'")
        'Expected values >= 0, but got -1.'
    """
    if isinstance(error, DisinheritError) and not error.foreign:
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
