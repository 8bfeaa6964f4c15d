"""What the hub keeps of tasks that nobody waits for any more."""

from disinherit.server.agents.hub import Hub, Reply, Session
from disinherit.v1 import agents_pb2 as pb

REPLIES: list[Reply] = []


def posted(hub: Hub) -> str:
    task_id = hub.post("anna", pb.AgentTask(action="evaluate.panel"), REPLIES.append)
    assert task_id is not None
    return task_id


def test_an_agent_that_never_takes_its_tasks_is_not_kept_those_that_were_dropped() -> None:
    """It was sent each pass's task again, once it took them, and all were in memory until then."""
    hub = Hub()
    session = Session("anna")
    hub.connect(session)
    for _ in range(3):
        hub.drop(posted(hub))
    still = posted(hub)
    assert [task.task_id for task in session.taken()] == [still]


def test_tasks_that_are_dropped_while_others_are_sent_are_not_sent() -> None:
    hub = Hub()
    session = Session("anna")
    hub.connect(session)
    first, second, third = posted(hub), posted(hub), posted(hub)
    sent = []
    for task in session.taken():
        sent.append(task.task_id)
        hub.drop(second)
    assert sent == [first, third]


def test_parts_of_an_answer_are_kept_no_longer_than_its_task() -> None:
    """An agent that stops in the middle of each answer filled the memory."""
    hub = Hub()
    session = Session("anna")
    hub.connect(session)
    task_id = posted(hub)
    hub.receive(session, pb.AnswerPart(task_id=task_id, data=bytes(100)))
    assert session.parts
    hub.drop(task_id)
    assert not session.parts
    hub.receive(session, pb.AnswerPart(task_id=task_id, data=bytes(100), last=True))
    assert not session.parts
    assert not REPLIES


def test_what_comes_along_is_copied_when_its_task_is_taken() -> None:
    """Ten thousand agents' tasks with 16 kB each took 180 MB until all had answered."""
    hub = Hub()
    session = Session("anna")
    hub.connect(session)
    along = {"digest": b"as it was"}
    task_id = hub.post("anna", pb.AgentTask(action="a", task=b"t"), REPLIES.append, along=along)
    along["digest"] = b"as it is"
    (sent,) = session.taken()
    assert dict(sent.blobs) == {"digest": b"as it is"}
    assert (sent.task_id, sent.action, sent.task) == (task_id, "a", b"t")
