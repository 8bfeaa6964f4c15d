"""HTTP server of the metrics: `/metrics` and nothing else, on a listener of its own."""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from disinherit.common.errors import InputError
from disinherit.server.service.exposition import CONTENT_TYPE
from disinherit.server.service.listening import check_address

_SILENT_SECONDS = 5.0
"""How long a connection may stay silent."""

_AT_ONCE = 8
"""Connections at a time; a connection takes a thread."""


class MetricsPage:
    """A running server; `stop` ends it.

    Args:
        address: `host:port`; port 0 for any free port.
        page: returns the metrics as they are now.

    Attributes:
        port: its port.

    Raises:
        InputError: if the address is malformed or cannot be used.
    """

    def __init__(self, address: str, page: Callable[[], bytes]) -> None:
        host = check_address(address)
        try:
            self._server = _Server((host, int(address.rpartition(":")[2])), page)
        except OSError as error:
            raise InputError(
                f"Expected an address for metrics to listen at, but {address!r}: {error.strerror}."
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: Callable[[], bytes]) -> None:
        self.page = page
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, _Page)

    def process_request(self, request: object, client_address: object) -> None:
        """Answer in a thread of its own, while there is room; else close the connection."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Answer a connection."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def handle_error(self, *_: object) -> None:
        """Ignore connections that break."""


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENT_SECONDS
    server_version = "disinherit"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND, "Expected /metrics")
            return
        data = self.server.page()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape is no event."""
