"""The transport to all owners of a Flower app: nodes over Flower, the server in this process."""

from collections.abc import Iterator, Sequence

from flwr.serverapp import Grid

from disinherit.direct import DirectTransport
from disinherit.flower.app_owners import ServerOwner
from disinherit.flower.functions import AppFunctions, Values
from disinherit.flower.nodes import KnownNodes
from disinherit.flower.places import SERVER
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.transport.base import Answer, Ask


class EveryoneTransport:
    """Carries messages to nodes over Flower, and to the server without.

    Args:
        grid: Flower's grid of the run.
        nodes: the nodes that are there.
        functions: of the app.
        values: configuration of the run.
    """

    def __init__(
        self, grid: Grid, nodes: KnownNodes, functions: AppFunctions, values: Values
    ) -> None:
        self._nodes = FlowerTransport(grid, nodes)
        self._server = DirectTransport({SERVER: lambda: ServerOwner(functions, values)})

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages and yield exactly one answer for each.

        Args:
            asks: the messages.
            timeout: seconds after which a missing answer becomes an error.
        """
        yield from self._nodes.ask([ask for ask in asks if ask.owner != SERVER], timeout)
        yield from self._server.ask([ask for ask in asks if ask.owner == SERVER], timeout)
