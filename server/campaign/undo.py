"""Steps of a pass that go back: put back what a request superseded, or destroy it for good.

Every answer is stored as it arrives.  Owners that cannot be reached are asked again by the next
pass.  One that refuses to put a model back is not, and its model stays as it is, with the reason;
one that could not destroy it is.
"""

from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.campaign.version_rounds import DESTROY, ROLL_BACK, ask_about
from disinherit.server.states import TaskState
from disinherit.server.store import retention as destruction_rows
from disinherit.server.store import rollbacks as roll_back_rows
from disinherit.server.store.retention import DestroyedModel
from disinherit.server.store.rollbacks import TakenBack


def take_back(one: Pass) -> None:
    """Ask the owners of models that are to be put back.

    Raises:
        StoreError: if the lease was lost.
    """
    models = [model for model, task in one.tasks.items() if task.state is TaskState.ROLLING_BACK]
    one.say("putting back what was superseded, all owners at once")
    for answers in ask_about(one, models, ROLL_BACK):
        found = [
            TakenBack(answer.model_id, "" if answer.refusal else answer.digest, answer.refusal)
            for answer in answers
        ]
        with one.writing() as change:
            roll_back_rows.record(change.db, one.request.id, found)
        one.changed += [taken.model_id for taken in found if not taken.refusal]


def destroy(one: Pass) -> None:
    """Ask the owners of versions with a retention window that has passed to destroy them.

    Raises:
        StoreError: if the lease was lost.
    """
    due = one.store.due_destructions(one.request.id).get(one.request.id, [])
    if not due:
        return
    one.say("the retention window has passed: destroying what was superseded")
    for answers in ask_about(one, due, DESTROY):
        found = [
            DestroyedModel(answer.model_id, refusal=answer.refusal)
            if answer.refusal
            else DestroyedModel(answer.model_id, answer.digest, answer.held_by)
            for answer in answers
        ]
        with one.writing() as change:
            destruction_rows.record(change.db, one.request.id, found)
