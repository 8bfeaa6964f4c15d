"""States of models with all their versions, in words."""

from rich.text import Text

from disinherit.cli.tables import state_text
from disinherit.common.graph.lineages import Lineage


def describe(model: Lineage) -> Text:
    """Return the state of a model: what it forgot, or the status of its version."""
    if model.became:
        return state_text("verified", model.became)
    return state_text(model.current.status.value)
