"""Status of requests: counts by task state, and pages with a fixed number of queries."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import event

from disinherit.common.errors import RequestError
from disinherit.server.store.database import Database
from disinherit.server.store.status import find_status, page_statuses
from tests.support.campaign import FORGET, World, make_request
from tests.support.changes import look

IDS = ("q", "second", "third")


@pytest.fixture
def world(world: World) -> World:
    """With three requests, of which the first is complete."""
    for number, id in enumerate(IDS):
        world.coordinator.submit(make_request(dict([list(FORGET.items())[number % 2]]), id))
    world.coordinator.run("q")
    return world


def test_status_counts_the_tasks_of_each_request(world: World) -> None:
    for standing in look(world.store, page_statuses, None, 10):
        id = standing.request.id
        tasks = world.store.tasks(id).values()
        assert standing.request == world.store.request(id)
        assert standing.campaign == world.store.campaign(id)
        assert standing.tasks == Counter(task.state.value for task in tasks)
        assert standing.waves == 1 + max(task.wave for task in tasks)
        assert standing == look(world.store, find_status, id)
    with pytest.raises(RequestError, match="'none'"):
        look(world.store, find_status, "none")


def test_pages_follow_each_other_from_the_oldest_on(world: World) -> None:
    found: list[str] = []
    after = None
    while page := look(world.store, page_statuses, after, 1):
        found += [standing.request.id for standing in page]
        after = page[-1].campaign.created_us, page[-1].request.id
    assert found == list(IDS)
    assert (
        look(world.store, page_statuses, None, 2) == look(world.store, page_statuses, None, 10)[:2]
    )


def test_a_page_takes_as_many_queries_as_one(world: World) -> None:
    database = Database(world.database or world.root / "coordinator.db")
    made: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        made.append(statement)

    queries = []
    with database.reading() as db:
        event.listen(db, "before_cursor_execute", note)
        for count in (1, len(IDS)):
            assert len(page_statuses(db, None, count)) == count
            queries.append(len(made))
            made.clear()
    database.close()
    assert queries[0] == queries[1] > 0
