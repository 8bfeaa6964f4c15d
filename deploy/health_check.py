"""Health check of a coordinator for containers and units: exit code 0 if it is serving.

::

    python -m disinherit.deploy.health_check /var/lib/disinherit/ca.pem 50051 [SECONDS]

With SECONDS, it waits that long for the service to start.
"""

import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from disinherit.deploy.files import HOST

_CALL_SECONDS = 5.0
_PAUSE_SECONDS = 0.5


def is_healthy(ca: Path, port: int, seconds: float = 0.0) -> bool:
    """Return whether the service at a port of this machine reports that it is serving.

    Args:
        ca: PEM of the authority that signed its certificate.
        port: its port for operators.
        seconds: maximum wait.
    """
    end = time.monotonic() + seconds
    while True:
        if _serves(ca, port):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE_SECONDS)


def _serves(ca: Path, port: int) -> bool:
    try:
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        with grpc.secure_channel(f"{HOST}:{port}", credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_CALL_SECONDS)
    except (OSError, grpc.RpcError):
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    serving = is_healthy(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:4]))
    sys.exit(0 if serving else "error: the coordinator is not serving; see its log")
