"""ServerApp that carries out one request to forget, for the nodes of an app that has trained.

`disinherit flower forget` runs it in the place of the app's own ServerApp.  By hand::

    [tool.flwr.app.components]
    serverapp = "disinherit.flower.forget_app:app"

    [tool.flwr.app.config]
    forget = '{"classes": ["3"]}'
"""

import json

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from disinherit.common.errors import DisinheritError
from disinherit.common.text import one_line
from disinherit.flower.asked_for import KEY, PREFIX, VALUE, read_asked
from disinherit.flower.finding import find_app
from disinherit.flower.requests_to_forget import forget, newest_model
from disinherit.flower.result_lines import result_lines, result_values

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out the request of the run's configuration, and print what became of each model."""
    try:
        asked = read_asked(context.run_config.get(KEY))
        functions = find_app(grid).functions
        result = forget(
            grid,
            context,
            classes=asked.classes,
            samples=asked.samples,
            client=asked.client,
            request_id=asked.request_id,
            reason=asked.reason,
            hand_down=asked.hand_down,
            say=_say,
        )
    except DisinheritError as error:
        print(f"{PREFIX}error: {one_line(str(error))}", flush=True)
        raise
    for value in result_values(result):
        _say(f"{VALUE}{json.dumps(value)}")
    for line in result_lines(result):
        _say(line)
    if asked.client:
        _say(
            f"{asked.client} has left: its own models know what they knew. Take them out of use on "
            f"its machine and here: disinherit flower retire {functions.name} {asked.client}"
        )
    _say(f"newest global model: {newest_model(functions.name)}")


def _say(line: str) -> None:
    print(f"{PREFIX}{line}", flush=True)
