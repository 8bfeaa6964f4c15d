"""ServerApp that carries out one request to forget, for the nodes of an app that has trained.

`disinherit flower forget` runs it in the place of the app's own ServerApp.  By hand::

    [tool.flwr.app.components]
    serverapp = "disinherit.flower.forget_app:app"

    [tool.flwr.app.config]
    forget = '{"classes": ["3"]}'
"""

from collections.abc import Iterator

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from disinherit.common.errors import DisinheritError
from disinherit.common.text import one_line
from disinherit.flower.asked_for import KEY, PREFIX, read_asked
from disinherit.flower.finding import find_app
from disinherit.flower.requests_to_forget import forget, newest_model
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.states import Task
from disinherit.v1 import unlearning_pb2 as pb

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
        )
    except DisinheritError as error:
        print(f"{PREFIX}error: {one_line(str(error))}", flush=True)
        raise
    for line in result_lines(result):
        print(f"{PREFIX}{line}", flush=True)
    print(f"{PREFIX}newest global model: {newest_model(functions.name)}", flush=True)


def result_lines(result: CampaignResult) -> Iterator[str]:
    """Yield what became of each model, as lines for people; the outcome comes first.

    Args:
        result: of a request.
    """
    settled = sum(task.state.settled for task in result.tasks.values())
    yield (
        f"request {result.request_id}: {result.outcome}, {settled} of {len(result.tasks)} models "
        f"settled, {len(result.changed)} changed"
    )
    widest = max((len(model) for model in result.tasks), default=0)
    for model, task in result.tasks.items():
        shown = ", ".join(filter(None, (_figures(task), task.reason)))
        yield f"  {model:{widest}}  {task.state:<12} {one_line(shown)}".rstrip()


def _figures(task: Task) -> str:
    """Return what a model's owner measured; empty if it measured nothing."""
    result = task.result
    if result is None:
        return ""
    shown = []
    if result.HasField("forget"):
        shown.append(_forgotten(result.forget))
    if result.HasField("retain_after"):
        shown.append(f"retain {result.retain_before:.1%} -> {result.retain_after:.1%}")
    return ", ".join(shown)


def _forgotten(found: pb.Recognition) -> str:
    if found.measure == "auc":
        return f"forget AUC {found.before:.3f} -> {found.after:.3f}"
    return f"forget {found.before:.1%} -> {found.after:.1%}"
