"""The dashboard in the process of a coordinator, of which it is a client like any other."""

import threading

import grpc

from disinherit.ui.application import Dashboard
from disinherit.ui.cookies import Cookies
from disinherit.ui.serving import Address, listen, make_server, url
from disinherit.ui.visitors import CHANNEL_OPTIONS, Visitor


class Beside:
    """A dashboard that runs until it is stopped.

    It listens from the beginning, so that a taken address is known before anything has started.

    Args:
        address: where it listens.

    Attributes:
        url: its address for a browser.

    Raises:
        InputError: if the address cannot be used.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._listener = listen(address)
        self._port = self._listener.getsockname()[1]
        self.url = url(address, self._port)

    def start(self, target: str, coordinator: str) -> None:
        """Start to serve.

        Args:
            target: of a channel to the coordinator, within this machine.
            coordinator: its address, as people know it.
        """
        self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        dashboard = Dashboard(
            lambda token: Visitor(self._channel, coordinator, token),
            coordinator,
            Cookies(self._port, self._address.secure),
        )
        self._server = make_server(dashboard.application(self._address.hosts), self._address)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="dashboard"
        )
        self._thread.start()

    def stop(self) -> None:
        """End open pages, and stop."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self._channel.close()
