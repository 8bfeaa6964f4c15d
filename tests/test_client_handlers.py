"""The one table of what owners do: complete, and light to import."""

import subprocess
import sys

from disinherit.client.handlers import HANDLERS
from disinherit.server.transport import ACTIONS


def test_every_legal_action_has_a_handler_and_no_other() -> None:
    assert HANDLERS.keys() == ACTIONS.keys()


def test_handlers_need_no_carrier_and_no_graph() -> None:
    heavy = "flwr", "ray", "sqlalchemy", "networkx", "rich", "matplotlib"
    code = (
        "import sys, disinherit.client.handlers\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
