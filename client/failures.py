"""Why something failed, as one line for whoever asked.

What an owner's own code raises (a data loader, a network) can be of any type.  It must not spoil
the other models of a message, so handlers catch it per model, say it here, and go on.
"""

import logging

from disinherit.common.errors import DisinheritError

_log = logging.getLogger(__name__)


def explain(error: Exception, doing: str) -> str:
    """Return the reason of a failure, and log the traceback of one that nobody foresaw.

    Args:
        error: what was raised.
        doing: what was tried, to follow "Expected to".

    Returns:
        One line.

    Example:
        >>> from disinherit.common.errors import FisherError
        >>> explain(FisherError("Expected values >= 0, but got -1."), "unlearn in model 'm'")
        'Expected values >= 0, but got -1.'
    """
    if isinstance(error, DisinheritError):
        return one_line(error)
    _log.error("Failed to %s", doing, exc_info=error)
    return (
        f"Expected to {doing}, but got {type(error).__name__}: {one_line(error) or 'no reason'}. "
        "The owner's log has the traceback."
    )


def one_line(error: Exception) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())
