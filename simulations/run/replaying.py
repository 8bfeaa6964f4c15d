"""Replay of one model's training, and the exact retraining in this process.

The same orders go to simulated owners over Flower (`fleet`) and to `replay` here, with the same
number of threads, so that both give the same weights bit for bit.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from disinherit.common.models.devices import pick_device
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.run.fitting import Fit, fit_weights
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights, starting_weights
from disinherit.simulations.scenario.settings import OWNER_THREADS
from disinherit.simulations.scenario.shares import SharedData, share_out
from disinherit.simulations.scenario.topology import Derivation


def fit_of(
    derivation: Derivation,
    forgetting: Forgetting,
    *,
    replay: bool,
    created_us: int = 0,
    keep: bool = False,
    run: str = "",
) -> Fit:
    """Return the order to train a model.

    Args:
        derivation: the model.
        forgetting: what is to be forgotten in the run.
        replay: whether it is the exact retraining, without what is to be forgotten.
        created_us: creation time.
        keep: whether the owner registers the model.
        run: name of the run.
    """
    return Fit(
        derivation.id,
        created_us,
        forgetting.classes_left_out(derivation.id, replay=replay),
        keep,
        forgetting.spaces.labels[derivation.id],
        derivation.trains,
        forgetting.samples_left_out(derivation.id, replay=replay),
        run,
    )


def start_of(
    derivation: Derivation,
    forgetting: Forgetting,
    weights: Mapping[str, Weights],
    *,
    replay: bool = False,
) -> Weights | None:
    """Return what a model's training starts from; `None` for the common initialisation.

    Args:
        derivation: the model.
        forgetting: what is to be forgotten in the run.
        weights: of its parents, at least.
        replay: whether it is the exact retraining.  A federation without a client averages what
            those who stay have sent, so parents whose owner has left have no share in it, unless
            there are no others.
    """
    if replay:
        staying = tuple(one for one in derivation.links if not forgetting.has_left(one.parent))
        derivation = replace(derivation, links=staying or derivation.links)
    return starting_weights(
        derivation, forgetting.spaces, weights, lambda classes: _fresh(forgetting, classes)
    )


def untrained(
    derivation: Derivation, forgetting: Forgetting, weights: Mapping[str, Weights]
) -> Weights:
    """Return what is left of a model whose owner's whole contribution is left out: its start."""
    start = start_of(derivation, forgetting, weights, replay=True)
    return _initial(derivation, forgetting) if start is None else start


def retrain_one(
    derivation: Derivation,
    forgetting: Forgetting,
    weights: Mapping[str, Weights],
    without: Collection[int] | None,
) -> Weights:
    """Train one model again as it was trained, from the same start, without some samples.

    Args:
        derivation: the model.
        forgetting: what is to be forgotten in the run.
        weights: of its parents, at least.
        without: samples to leave out, as indices into the data set's pool; `None` for no training
            at all.

    Raises:
        DataError: if there is no data left to train on, or the training diverges.
    """
    start = start_of(derivation, forgetting, weights)
    if without is None:
        return _initial(derivation, forgetting) if start is None else start
    settings = forgetting.settings
    fit = fit_of(derivation, forgetting, replay=False)
    fit = replace(fit, without_samples=(*fit.without_samples, *sorted(without)))
    owner = settings.scenario.owner_of(derivation.id, settings.clients)
    with _threads_of_owners():
        device = pick_device(settings.device)
        return fit_weights(settings, share_out(settings), owner, fit, start, device)[0]


def replay(forgetting: Forgetting, known: Mapping[str, Weights]) -> dict[str, Weights]:
    """Retrain the affected models exactly, without what is to be forgotten, in this process.

    Args:
        forgetting: what is to be forgotten.
        known: weights of the unaffected models that affected ones derive from.

    Returns:
        Weights of the affected models.

    Raises:
        DataError: if a model has no data left to train on.
    """
    settings = forgetting.settings
    data = share_out(settings)
    weights = dict(known)
    with _threads_of_owners():
        for derivation in settings.scenario.derivations:
            if derivation.id in forgetting.affected:
                weights[derivation.id] = _retrained(derivation, forgetting, data, weights)
    return {model: weights[model] for model in forgetting.affected}


def _retrained(
    derivation: Derivation,
    forgetting: Forgetting,
    data: SharedData,
    weights: Mapping[str, Weights],
) -> Weights:
    if forgetting.has_left(derivation.id):
        return untrained(derivation, forgetting, weights)
    settings = forgetting.settings
    return fit_weights(
        settings,
        data,
        settings.scenario.owner_of(derivation.id, settings.clients),
        fit_of(derivation, forgetting, replay=True),
        start_of(derivation, forgetting, weights, replay=True),
        pick_device(settings.device),
    )[0]


@contextmanager
def _threads_of_owners() -> Iterator[None]:
    """Compute with as many threads as an owner in the engine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _initial(derivation: Derivation, forgetting: Forgetting) -> Weights:
    """Return the weights of the network that a model without parents starts from."""
    network = _fresh(forgetting, len(forgetting.spaces.labels[derivation.id]))
    return {name: value.detach() for name, value in network.state_dict().items()}


def _fresh(forgetting: Forgetting, classes: int) -> Classifier:
    """Return the network that models with so many classes start from."""
    settings = forgetting.settings
    return settings.network_spec(share_out(settings).dataset, classes).build(settings.seed)
