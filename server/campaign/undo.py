"""Roll-back and destruction of superseded versions, as steps of a pass.

Every answer is stored on arrival.  The next pass asks unreachable owners again, and owners that
could not destroy a version.  An owner that refuses to put a model back is not asked again; its
model stays, with the reason.
"""

from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.campaign.version_rounds import DESTROY, ROLL_BACK, ask_about
from disinherit.server.states import TaskState
from disinherit.server.store import retention, rollbacks
from disinherit.server.store.retention import DestroyedModel
from disinherit.server.store.rollbacks import TakenBack


def take_back(one: Pass) -> None:
    """Ask the owners of models to be put back.

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
            rollbacks.record(change.db, one.request.id, found)
        one.changed += [taken.model_id for taken in found if not taken.refusal]


def destroy(one: Pass) -> None:
    """Ask owners to destroy the versions whose retention windows have passed.

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
            retention.record(change.db, one.request.id, found)
