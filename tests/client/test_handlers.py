"""The table of handlers: complete, and light to import."""

import re
import subprocess
import sys

import pytest

from disinherit.client.handlers import HANDLERS
from disinherit.common.wire.messages import ACTIONS
from disinherit.server.transport import pacing
from disinherit.v1 import unlearning_pb2 as pb
from tests import ROOT

PROTO = ROOT / "protos/disinherit/v1/unlearning.proto"


def test_every_legal_action_has_a_handler_and_no_other() -> None:
    assert HANDLERS.keys() == ACTIONS.keys()


def test_the_schema_names_the_same_actions_at_their_tasks() -> None:
    found: dict[str, type] = {}
    for comment, message in re.findall(r"((?:^//.*\n)+)^message (\w+)", PROTO.read_text(), re.M):
        actions = re.findall(r"\b((?:query|train|evaluate)\.[a-z]+):", comment)
        found |= dict.fromkeys(actions, getattr(pb, message))
    assert found == {name: action.task for name, action in ACTIONS.items()}


@pytest.mark.parametrize("action", ACTIONS)
def test_tasks_with_packets_match_the_schema(action: str) -> None:
    fields = ACTIONS[action].task.DESCRIPTOR.fields
    types = {field.message_type for field in fields}
    assert ACTIONS[action].carries_packets == (pb.FisherPacket.DESCRIPTOR in types)


def test_special_actions_of_transports_exist() -> None:
    assert ACTIONS.keys() >= {*pacing._BY_HAND}


def test_handlers_need_no_carrier_and_no_graph() -> None:
    heavy = "flwr", "ray", "sqlalchemy", "networkx", "rich", "matplotlib"
    code = (
        "import sys, disinherit.client.handlers\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
