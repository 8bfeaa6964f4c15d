"""Proxy in front of the SuperLink: nginx, with the configuration in `nginx.conf`."""

import shutil
import stat
from pathlib import Path

from disinherit.common.errors import InputError
from disinherit.common.files import write_private
from disinherit.deploy.files import HOST, FleetFiles
from disinherit.deploy.programs import PROXY, Program

CONFIGURATION = Path(__file__).resolve().parent / "nginx.conf"

_LISTEN = "0.0.0.0:9092"
_SUPERLINK = "127.0.0.1:9091"
_SEARCHED = "/usr/sbin:/usr/local/sbin:/sbin"


def find_nginx() -> str | None:
    """Return the path of nginx; `None` if it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path=_SEARCHED)


def require_nginx() -> str:
    """Return the path of nginx.

    Raises:
        InputError: if it is not installed.
    """
    found = find_nginx()
    if found is None:
        raise InputError(
            "Expected nginx, which keeps everything but Flower's fleet endpoints from the nodes, "
            "but it is not installed: apt-get install nginx-light, or dnf install nginx."
        )
    return found


def write_proxy(files: FleetFiles) -> Path:
    """Write the proxy's folder, and return the path of its configuration.

    The proxy is reachable from the network.  It has copies of the three files that it needs, so
    that its user needs no access to others.

    Args:
        files: files of the fleet, with certificates.
    """
    text = CONFIGURATION.read_text()
    text = text.replace(f"listen {_LISTEN} ", f"listen {files.address}:{files.ports.nodes} ")
    text = text.replace(f"server {_SUPERLINK};", f"server {HOST}:{files.ports.superlink};")
    folder = files.proxy
    folder.mkdir(exist_ok=True)
    # Readable for the proxy's group if the folder sets one (setgid).
    mode = 0o640 if folder.stat().st_mode & stat.S_ISGID else 0o600
    configuration = folder / CONFIGURATION.name
    for path, content in (
        (folder / files.certificate.name, files.certificate.read_bytes()),
        (folder / files.key.name, files.key.read_bytes()),
        (folder / files.ca.name, files.ca.read_bytes()),
        (configuration, text.encode()),
    ):
        write_private(path, content)
        path.chmod(mode)
    return configuration


def proxy(files: FleetFiles) -> Program:
    """Write the proxy's files and return its program.

    Args:
        files: files of the fleet, with certificates.

    Raises:
        InputError: if nginx is not installed.
    """
    nginx = require_nginx()
    configuration = write_proxy(files)
    words = (nginx, "-e", "stderr", "-p", str(configuration.parent), "-c", str(configuration))
    return Program(PROXY, words)
