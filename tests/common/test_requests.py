"""Requests and their parts as values and as messages."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import RequestError
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request, RollOut, Wave
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb

POSITIVE = st.floats(1e-6, 1e6)
METHODS = st.builds(
    Method,
    scope=st.sampled_from(["head", "all", "0.*,2.bias"]),
    reference=st.sampled_from(["retain", "all"]),
    merge=st.sampled_from(["max", "mean", "sum"]),
    alpha=st.none() | POSITIVE,
    lam=st.none() | POSITIVE,
    gauge=st.none() | st.floats(0, 10),
    exponent=POSITIVE,
    bound=st.floats(0.01, 1),
    row_scoped=st.booleans(),
    encoding=st.sampled_from(["full", "bfloat16", "log8"]),
    repair_steps=st.integers(0, 10_000),
    min_inheritance=st.floats(0, 1),
    rescale=st.booleans(),
    mechanism=st.just("fisher"),
) | st.builds(
    Method,
    scope=st.sampled_from(["all", "0.*,2.bias"]),
    mechanism=st.just("delta"),
    root_method=st.sampled_from(["auto", "replay", "neggrad+", "my-method"]),
    delta_encoding=st.sampled_from(["full", "bfloat16", "int8"]),
    delta_rank=st.integers(0, 1024),
    repair_steps=st.integers(0, 10_000),
)
SAMPLES = SampleDigests("0" * 32, ("a" * 64, "b" * 64), ignore_unknown=True)
ROLL_OUT = RollOut(canaries=["zoe"], waves=[Wave(fraction=0.5), Wave(count=3)], max_error_rate=0.1)
REQUESTS = [
    Request(forget={"a": ["cat", "dog"], "b": ["owl"]}, reason="asked to"),
    Request(samples={"a": SAMPLES}, roll_out=ROLL_OUT),
    Request(client="zoe", retention_seconds=7),
    Request(client="zoe", forget={"a": (), "b": ()}, id="q"),
    Request(forget={"a": ["cat"]}, roll_out=RollOut(), method=Method(scope="all", alpha=2.0)),
]


@given(METHODS)
def test_a_method_is_the_same_after_its_message(method: Method) -> None:
    assert Method.from_proto(pb.Method.FromString(method.to_proto().SerializeToString())) == method


def test_a_message_without_a_mechanism_is_as_it_was_before_there_were_two() -> None:
    message = Method().to_proto()
    assert not message.mechanism
    assert message == Method(mechanism="fisher", root_method="replay").to_proto()


@pytest.mark.parametrize("request_of", [{"samples": {"a": SAMPLES}}, {"client": "zoe"}])
def test_a_change_covers_all_layers_unless_globs_limit_it(request_of: Any) -> None:
    assert Request(**request_of, method=Method(mechanism="delta")).method.scope == "all"
    globs = Method(mechanism="delta", scope="0.*")
    assert Request(**request_of, method=globs).method.scope == "0.*"


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"mechanism": "change"}, "mechanism"),
        ({"root_method": "Re play"}, "root method"),
        ({"delta_encoding": "log8"}, "delta encoding"),
        ({"delta_rank": -1}, "rank"),
    ],
)
def test_values_of_a_change_are_checked(wrong: Any, names: str) -> None:
    with pytest.raises(RequestError, match=names):
        Method(**wrong)


def test_only_optional_values_of_a_method_may_be_missing() -> None:
    six = {"scope": "all", "reference": "all", "merge": "sum", "exponent": 2.0, "bound": 0.5}
    message = pb.Method(**six)  # type: ignore[arg-type]
    expected = Method(**six, row_scoped=False, mechanism="fisher")  # type: ignore[arg-type]
    assert Method.from_proto(message) == expected
    for name in six:
        damaged = pb.Method()
        damaged.CopyFrom(message)
        damaged.ClearField(name)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=f"Expected {name}"):
            Method.from_proto(damaged)


def test_an_encoding_of_a_newer_release_is_refused() -> None:
    message = Method().to_proto()
    message.encoding = 99  # type: ignore[assignment]
    with pytest.raises(RequestError, match="but got number 99"):
        Method.from_proto(message)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_is_the_same_after_its_message(request_: Request) -> None:
    message = pb.UnlearningRequest.FromString(request_.to_proto().SerializeToString())
    again = Request.from_proto(message)
    assert again == request_
    assert again.to_proto() == message


def test_a_request_derives_its_id_from_its_content() -> None:
    base = Request(forget={"a": ["cat"]})
    assert base.id == Request(forget={"a": "cat"}).id
    changes: list[dict[str, Any]] = [
        {"forget": {"a": ["dog"]}},
        {"reason": "asked to"},
        {"method": Method(alpha=1.0)},
        {"retention_seconds": 1},
        {"roll_out": RollOut()},
    ]
    others = {dataclasses.replace(base, id="", **change).id for change in changes}
    assert len(others | {base.id}) == len(changes) + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least one class to forget, or samples or a client instead, but got none"),
        ({"forget": {"a": []}}, "Expected classes to forget at root 'a', but got none"),
        ({"forget": {"a": ["cat"]}, "client": "zoe"}, "beside client 'zoe'.* at root 'a'"),
        ({"samples": {"a": SAMPLES}, "client": "zoe"}, "beside client 'zoe'.* at root 'a'"),
        ({"forget": {"a": ["cat"]}, "samples": {"b": SAMPLES}}, "in one request, but got both"),
        ({"forget": {"a": ["cat"]}, "samples": {"a": SAMPLES}}, "at root 'a', but got both"),
        ({"client": "zoe", "retention_seconds": 10**12}, "at most 3162240000 seconds"),
        ({"client": "zoe", "retention_seconds": -1}, "but got -1"),
    ],
)
def test_an_invalid_request_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(**values)


@pytest.mark.parametrize("size", ["", "ten", "10 %", "-5", "1000%", "1.5"])
def test_a_wave_that_is_neither_share_nor_number_is_refused(size: str) -> None:
    with pytest.raises(RequestError):
        Wave.parse(size)


def test_a_wave_has_one_size() -> None:
    assert [str(Wave.parse(size)) for size in ("10%", "0.5%", "25")] == ["10%", "0.5%", "25"]
    with pytest.raises(RequestError, match="but got both"):
        Wave(fraction=0.5, count=1)


def test_requests_load_no_torch() -> None:
    code = "import sys, disinherit.common.wire.requests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
