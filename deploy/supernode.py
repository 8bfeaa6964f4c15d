"""SuperNode that exits when it gives up: `python -m disinherit.deploy.supernode`.

It runs `flower-supernode` with the same arguments.  After a TLS error, for instance a connection
lost during the handshake, `flower-supernode` gives up, but its process waits for a thread that
never ends.  A supervisor would not restart it, and its owner would stay away.
"""

import os
import sys
import traceback
from importlib.metadata import entry_points

_PROGRAM = "flower-supernode"


def main() -> None:
    """Run a SuperNode, and end the process with it."""
    (program,) = entry_points(group="console_scripts", name=_PROGRAM)
    sys.argv[0] = _PROGRAM  # for its messages
    code = 1
    try:
        program.load()()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    # Its child processes notice its end, and end too.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
