"""Flower apps that can forget: owner apps, strategies that keep what they make, and requests.

A Flower app of PyTorch becomes one by three changed lines (docs/flower.md)::

    from disinherit.flower import owner_app                                  # client_app.py
    app = owner_app(ClientApp(), model=Net, data=load_data)
    from disinherit.flower import FedAvg                                     # server_app.py

Flower's strategies are here by their own names, too, each of which keeps what it makes.
"""

from typing import TYPE_CHECKING

from disinherit.common.extras import explained

if TYPE_CHECKING:
    from flwr.serverapp.strategy import *  # noqa: F403

try:
    from disinherit.flower import strategies
    from disinherit.flower.owner_apps import OwnerApp, owner_app
    from disinherit.flower.recording import unlearnable
    from disinherit.flower.requests_to_forget import forget
    from disinherit.flower.result_lines import result_lines
except Exception as error:
    raise explained(error, __name__) from None

__all__ = ["OwnerApp", "forget", "owner_app", "result_lines", "unlearnable"]


def __getattr__(name: str) -> object:
    if name not in dir(strategies):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(strategies, name)
