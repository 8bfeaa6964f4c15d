"""Plans that are kept: the same as new ones, and made again only if something changed for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.wire.requests import Request
from disinherit.server.planning.plan import plan
from disinherit.server.states import Task
from disinherit.server.store import known_plans
from disinherit.server.store.graph import read_descendants
from disinherit.server.store.known_plans import plan_again
from disinherit.server.store.store import CoordinatorStore


def register(store: CoordinatorStore, id: str, parent: str = "") -> None:
    edges = [Inheritance(parent, id, InheritanceKind.TRANSFER)] if parent else []
    store.register(ModelRecord(id, "anna", "aa", ("cat", "dog"), "0a", 0), edges, actor="x")


def test_a_plan_is_made_again_only_if_the_graph_or_its_tasks_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return plan(*args, **kwargs)

    monkeypatch.setattr(known_plans, "plan", counted)
    store = CoordinatorStore(tmp_path / "c.db")
    for id, parent in (("r", ""), ("a", "r"), ("else", "")):
        register(store, id, parent)
    request = Request(id="q", forget={"r": ["cat"]}).to_proto()
    tasks = {id: Task(id, "anna") for id in ("r", "a")}

    def affected() -> tuple[str, ...]:
        with store.reading() as db:
            part = read_descendants(db, ["r"])
        found = plan_again(part, request, tasks)
        assert found == plan(part.graph(), request, (), (), tasked=tasks)
        return found.affected

    assert affected() == affected() == ("r", "a")
    tasks["a"] = replace(tasks["a"], reason="its owner is away")
    register(store, "unrelated", "else")
    assert affected() == ("r", "a")
    assert len(made) == 1
    register(store, "b", "a")
    assert affected() == ("r", "a", "b")
    tasks["b"] = Task("b", "anna", late=True)
    assert affected() == ("r", "a", "b")
    assert len(made) == 3
    store.close()
