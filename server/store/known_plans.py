"""Plans of submitted requests at the present graph, kept by what they follow from.

Passes, reports and repeated submissions plan the same request again and again; a plan takes longer
than all that is read for it.
"""

from collections.abc import Mapping

from disinherit.server.planning.plan import Plan, plan
from disinherit.server.states import Task, cleansed
from disinherit.server.store.graph import StoredPart
from disinherit.server.store.remembering import remembered
from disinherit.v1.unlearning_pb2 import UnlearningRequest


def plan_again(part: StoredPart, request: UnlearningRequest, tasks: Mapping[str, Task]) -> Plan:
    """Return the plan of a submitted request, without notes about versions elsewhere.

    Args:
        part: the descendants of its roots, as they are stored.
        request: the request.
        tasks: model -> its task.

    Raises:
        InputError: if it cannot be planned any more.
        StoreError: if the graph is damaged.
    """
    data = request.SerializeToString(deterministic=True)
    return _plan(part, data, frozenset(cleansed(tasks.values())), frozenset(tasks))


@remembered
def _plan(part: StoredPart, data: bytes, made: frozenset[str], tasked: frozenset[str]) -> Plan:
    return plan(part.graph(), UnlearningRequest.FromString(data), made, (), tasked=tasked)
