"""Reasons of failures: one line of ours; messages of foreign code only in the owner's log."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from disinherit.client.handlers import HANDLERS
from disinherit.client.owner.failures import explain
from disinherit.common.errors import DisinheritError, FisherError
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.owner import LABELS, PointsOwner, make_network


def test_expected_errors_are_their_own_reason(caplog: pytest.LogCaptureFixture) -> None:
    assert explain(FisherError("Expected a,\n  but got b."), "x") == "Expected a, but got b."
    assert not caplog.records


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size\n\tmismatch"),
        KeyError("cat"),
        OSError(2, "No such file", "/data/patients/cat-5-jane-doe-1971.png"),
        MemoryError(),
    ],
)
def test_messages_of_foreign_code_stay_in_the_owners_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise error
    except Exception as caught:
        with caplog.at_level(logging.ERROR):
            reason = explain(caught, "unlearn in model 'm'")
    found = re.fullmatch(
        rf"Expected to unlearn in model 'm', but got {type(error).__name__}\. The owner's log "
        r"has the reason under reference ([0-9a-f]{8})\.",
        reason,
    )
    assert found
    (record,) = caplog.records
    assert record.getMessage() == f"Failed to unlearn in model 'm' (reference {found[1]})"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_quoted_messages_of_foreign_code_stay_there_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = FisherError(
        "Expected inputs that\n Net can take, but got KeyError", foreign="'jane-doe'"
    )
    assert str(error) == "Expected inputs that\n Net can take, but got KeyError: 'jane-doe'"
    with caplog.at_level(logging.ERROR):
        reason = explain(error, "evaluate model 'm'")
    assert re.fullmatch(
        r"Expected inputs that Net can take, but got KeyError\. The owner's log has the reason "
        r"under reference [0-9a-f]{8}\.",
        reason,
    )
    assert "jane-doe" in caplog.text


WORD = "/data/patients/jane-doe-1971.png"


class Telling(nn.Sequential):
    """A network that fails with a person's name."""

    fails = "forward"

    def __call__(self, *inputs: Tensor) -> Any:
        if self.fails == "forward":
            raise KeyError(WORD)
        return super().__call__(*inputs)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        if self.fails == "load_state_dict":
            raise RuntimeError(WORD)
        return super().load_state_dict(*args, **options)


@pytest.mark.parametrize("where", ["forward", "load_state_dict", "training_data"])
def test_no_answer_contains_messages_of_the_owners_code(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        packet = collect(owner, "m", ["cat"], make_method())
        task = make_task(owner, ["m"], packet, make_method())

        def network(self: PointsOwner, record: ModelRecord) -> nn.Module:
            return Telling(*make_network(len(record.labels)))

        def training_data(self: PointsOwner, record: ModelRecord) -> Any:
            raise FileNotFoundError(2, "No such file", WORD)

        if where == "training_data":
            monkeypatch.setattr(PointsOwner, where, training_data)
        else:
            monkeypatch.setattr(Telling, "fails", where)
            monkeypatch.setattr(PointsOwner, "network", network)
        root = pb.Root(model_id="m", classes=["cat"])
        answers = []
        for action, asked in {
            "query.fisher": pb.FisherTask(
                request_id="q", roots=[root], method=make_method().to_proto()
            ),
            "train.unlearn": task,
            "evaluate.panel": pb.EvaluateTask(model_ids=["m"]),
            "query.register": pb.RegisterTask(scope="head"),
        }.items():
            try:
                answers.append(str(HANDLERS[action](owner, asked)))
            except DisinheritError as error:  # answered in the same way by the transport
                answers.append(explain(error, action))
    assert any("reference" in answer for answer in answers)
    assert [answer for answer in answers if "jane" in answer] == []
