"""Registration of owners' models: their records and Fisher summaries."""

from collections.abc import Callable, Iterator, Sequence

from disinherit.common.errors import InputError
from disinherit.common.text import one_line
from disinherit.server.campaign.contact import record_held
from disinherit.server.store.audit_events import owner_actor
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.answers import registered_record, reply_of, unhandled
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb


def register(
    store: CoordinatorStore,
    ask: Callable[[Sequence[Ask]], Iterator[Answer]],
    owners: Sequence[str],
    scope: str,
) -> dict[str, str]:
    """Ask owners for Fisher summaries of their models and complete the records.

    Args:
        store: the coordinator's.
        ask: sends messages to owners.
        owners: the owners.
        scope: scope of the summaries.

    Returns:
        Owner -> reason, for owners that failed, or had a model refused.
    """
    errors: dict[str, list[str]] = {}
    asks = [
        Ask(owner, "query.register", pb.RegisterTask(scope=scope))
        for owner in dict.fromkeys(owners)
    ]
    for answer in ask(asks):
        owner = answer.ask.owner
        reply, error = reply_of(answer, pb.RegisterReply)
        if reply is None:
            errors.setdefault(owner, []).append(error)
            continue
        known = store.records(message.id for message in reply.models)
        record_held(store, owner, {message.id for message in reply.models})
        records, refused = [], []
        for message in reply.models:
            try:
                records.append(registered_record(owner, message, known))
            except Exception as error:  # one answer must not stop the others
                refused.append(error)
        refused += store.add_models(records, actor=owner_actor(owner))
        for why in refused:
            expected = isinstance(why, InputError)
            reason = one_line(str(why)) if expected else unhandled(answer, why)
            errors.setdefault(owner, []).append(reason)
    return {owner: "; ".join(reasons) for owner, reasons in errors.items()}
