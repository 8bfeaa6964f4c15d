"""A SuperNode that ends when it has given up: `python -m disinherit.deploy.supernode`.

It is `flower-supernode`, and takes its arguments.  That one gives up at an error of TLS, as when a
connection is cut during the handshake, but its process stays, as it waits for a thread that never
ends: no supervisor would start it again, and its owner would be away for good.
"""

import os
import sys
import traceback
from importlib.metadata import entry_points

_PROGRAM = "flower-supernode"


def main() -> None:
    """Be a SuperNode, and end the process with it."""
    (program,) = entry_points(group="console_scripts", name=_PROGRAM)
    sys.argv[0] = _PROGRAM  # for its messages
    code = 1
    try:
        program.load()()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    # Its other processes see that it is gone, and end, too.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
