"""Reservations of Flower's strategies: what the inheritance graph says of rounds that they make.

A strategy whose aggregate is the weighted mean is recorded exactly.  Of any other, the graph shows
too much inheritance rather than too little: each update that came in time counts, and the global
model before it does.
"""

from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Strategy

from disinherit.common.errors import InputError
from disinherit.server.recording.flower_updates import averages_only, innermost

_STATE = "its server's state carries on what earlier updates changed"
_CHOICE = "it does not say which updates it took, or how much of each"
_NOISE = "it clips updates and adds noise"
_RESERVED: dict[str, str] = {
    "FedAvgM": _STATE,
    "FedAdam": _STATE,
    "FedAdagrad": _STATE,
    "FedYogi": _STATE,
    "FedMedian": _CHOICE,
    "FedTrimmedAvg": _CHOICE,
    "Krum": _CHOICE,
    "MultiKrum": _CHOICE,
    "Bulyan": _CHOICE,
    "QFedAvg": "it weighs updates by their loss",
}
_REFUSED = ("FedXgbBagging", "FedXgbCyclic")


def reservation(strategy: Strategy) -> str:
    """Return why the rounds of a strategy are not recorded exactly; `""` if they are.

    Args:
        strategy: a strategy of Flower's message API, or one of one's own.

    Raises:
        InputError: if it is none, or what it aggregates are no weights of a network.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg, FedMedian
        >>> reservation(FedAvg())
        ''
        >>> reservation(FedMedian())
        'it does not say which updates it took, or how much of each'
    """
    given: object = strategy
    if not isinstance(given, Strategy):
        raise InputError(
            f"Expected a strategy of flwr.serverapp.strategy, but got {type(given).__module__}."
            f"{type(given).__name__}. Use the strategy of the same name there."
        )
    inner = innermost(strategy)
    if refused := _nearest(inner, _REFUSED):
        raise InputError(
            f"Expected a strategy that aggregates the weights of a network, but {refused} "
            "aggregates trees. Unlearning of trees is not known here: retrain."
        )
    if averages_only(strategy):
        return ""
    if inner is not strategy:
        return _NOISE
    return _RESERVED.get(_nearest(inner, tuple(_RESERVED)), "its aggregate is its own")


def _nearest(strategy: Strategy, names: tuple[str, ...]) -> str:
    """Return which of Flower's strategies aggregates for a strategy, among some; else `""`."""
    for base in type(strategy).__mro__:
        known = getattr(strategies, base.__name__, None)
        if known is not None and issubclass(base, known) and base.__name__ in names:
            return base.__name__
    return ""
