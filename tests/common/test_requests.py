"""Requests and their parts as values and as messages."""

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import InputError, RequestError
from disinherit.common.graph.identifiers import check_id, check_owner
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.common.wire.roll_out import RollOut, Wave
from disinherit.common.wire.samples import SampleDigests, check_salt
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
    calibration_rounds=st.integers(0, 1000),
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


@pytest.mark.parametrize(
    ("request_of", "expected"),
    [
        ({"forget": {"a": ["cat"]}}, ("fisher", "head")),
        ({"samples": {"a": SAMPLES}}, ("delta", "all")),
        ({"client": "zoe"}, ("delta", "all")),
    ],
)
def test_the_kind_of_a_request_decides_what_descendants_inherit(
    request_of: Any, expected: tuple[str, str]
) -> None:
    settled = Request(**request_of)
    assert (settled.method.mechanism, settled.method.scope) == expected
    assert Request.from_proto(settled.to_proto()) == settled
    asked = Request(**request_of, method=Method(mechanism="fisher")).method
    assert (asked.mechanism, asked.scope) == ("fisher", "head")


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
        ({"calibration_rounds": -1}, "from 0 to 1000 rounds of calibration, but got -1"),
        ({"calibration_rounds": 1, "mechanism": "fisher"}, "with mechanism 'delta'"),
    ],
)
def test_values_of_a_change_are_checked(wrong: Any, names: str) -> None:
    with pytest.raises(RequestError, match=names):
        Method(**wrong)


def test_only_optional_values_of_a_method_may_be_missing() -> None:
    six = {"scope": "all", "reference": "all", "merge": "sum", "exponent": 2.0, "bound": 0.5}
    message = pb.Method(**six)  # type: ignore[arg-type]
    expected = Method(**six, row_scoped=False, mechanism="fisher", repair_steps=0)  # type: ignore[arg-type]
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
        {"method": Method(alpha=1.0)},
        {"retention_seconds": 1},
        {"roll_out": RollOut()},
    ]
    others = {dataclasses.replace(base, id="", **change).id for change in changes}
    assert len(others | {base.id}) == len(changes) + 1
    assert dataclasses.replace(base, id="", reason="for people").id == base.id


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
        ({"samples": {"a": SAMPLES}, "method": Method(calibration_rounds=3)}, "where a client is"),
        ({"forget": {"a": ["cat"]}, "method": Method(calibration_rounds=3)}, "where a client is"),
    ],
)
def test_an_invalid_request_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(**values)


HALF = "\ud800"
OTHER_TYPES: dict[str, tuple[Callable[..., object], dict[str, Any], str]] = {
    "text as number": (Method, {"alpha": "1"}, "a number as alpha in a method, but got '1'"),
    "truth as number": (Method, {"alpha": True}, "a number as alpha in a method, but got True"),
    "number as truth": (Method, {"row_scoped": 1}, "true or false as row_scoped in a method, .* 1"),
    "text as truth": (Method, {"rescale": "no"}, "true or false as rescale in a method, .* 'no'"),
    "fraction of a step": (Method, {"repair_steps": 1.5}, "a whole number as repair_steps .* 1.5"),
    "list as choice": (Method, {"reference": []}, r"reference to be one of retain, all, .* \[\]"),
    "list as text": (Method, {"scope": ["head"]}, "text as scope in a method, .* a list of 1"),
    "number as text": (Method, {"encoding": 3}, "text as encoding in a method, but got 3"),
    "list as mechanism": (Method, {"mechanism": []}, r"mechanism to be one of .* but got \[\]"),
    "number as root method": (Method, {"root_method": 3}, "text as root_method .* but got 3"),
    "text as rank": (Method, {"delta_rank": "3"}, "a whole number as delta_rank .* but got '3'"),
    "tensor": (Method, {"alpha": torch.tensor(1.0)}, r"a number as alpha .* tensor\(1.\)"),
    "half a character": (Method, {"scope": HALF}, "the scope as text that UTF-8 can hold"),
    "share as text": (Wave, {"fraction": "10%"}, "a number as fraction in a wave, .* '10%'"),
    "part of an owner": (Wave, {"count": 2.5}, "a whole number as count in a wave, but got 2.5"),
    "more owners than fit": (Wave, {"count": 2**32}, "from 0 to 4294967295 owners in a wave"),
    "name as names": (RollOut, {"canaries": "owner-3"}, "a list as canaries .* but got 'owner-3'"),
    "no names": (RollOut, {"canaries": None}, "a list as canaries in a roll-out, but got None"),
    "set of names": (RollOut, {"canaries": {"a"}}, "canaries in a roll-out, but got a set.* Sort"),
    "number as name": (RollOut, {"canaries": ["a", 3]}, r"text as canaries\[1\] .* but got 3"),
    "no name of an owner": (RollOut, {"canaries": ["a b"]}, "well-formed owner name, .* 'a b'"),
    "text as waves": (RollOut, {"waves": "10%"}, "a list as waves in a roll-out, but got '10%'"),
    "text as wave": (RollOut, {"waves": ["10%"]}, r"a Wave as waves\[0\] .* but got '10%'"),
    "less than no owners": (RollOut, {"canary_count": -1}, "owners in the first wave, but got -1"),
    "list as table": (Request, {"forget": ["a"]}, "a table as forget in a request, .* list of 1"),
    "set of classes": (Request, {"forget": {"a": {"cat"}}}, "forget in a request, but got a set"),
    "no classes": (Request, {"forget": {"a": None}}, "a list as forget.a in a request, .* None"),
    "number as class": (Request, {"forget": {"a": [3]}}, r"text as forget.a\[0\] .* but got 3"),
    "nameless class": (Request, {"forget": {"a": ["cat", ""]}}, "root 'a', but name 2 is empty"),
    "number as root": (Request, {"forget": {3: ["cat"]}}, "text as a key of forget .* but got 3"),
    "path as root": (Request, {"forget": {"a/b": ["cat"]}}, "well-formed model id .* 'a/b'"),
    "no name of a client": (Request, {"client": "a b"}, "well-formed owner name .* 'a b'"),
    "bytes as client": (Request, {"client": b"zoe"}, "text as client in a request, .* b'zoe'"),
    "text as method": (Request, {"client": "zoe", "method": "head"}, "a Method as method in .* 'h"),
    "table as order": (
        Request,
        {"client": "zoe", "roll_out": {}},
        "a RollOut as roll_out in .* a ",
    ),
    "number as id": (Request, {"client": "zoe", "id": 3}, "text as id in a request, but got 3"),
    "part of a second": (Request, {"client": "zoe", "retention_seconds": 1.5}, "a whole number as"),
    "half of a reason": (Request, {"client": "zoe", "reason": HALF}, "reason of a request as text"),
}


@pytest.mark.parametrize("name", OTHER_TYPES)
def test_a_value_of_another_type_is_refused_in_one_line(name: str) -> None:
    make, values, message = OTHER_TYPES[name]
    with pytest.raises(RequestError, match=message) as refused:
        make(**values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("samples", ["patient-7", {"a": "patient-7"}, {"a": ["patient-7"]}])
def test_ids_in_place_of_digests_are_refused_without_repeating_them(samples: Any) -> None:
    with pytest.raises(RequestError, match="as samples") as refused:
        Request(samples=samples)
    assert "patient-7" not in str(refused.value)


def test_a_request_is_what_it_was_when_it_was_made() -> None:
    names, forget = ["cat"], {"a": ["dog"]}
    roll_out = RollOut(canaries=names)
    request = Request(forget=forget, roll_out=roll_out)
    names.append("owl")
    forget["a"].append("owl")
    assert roll_out.canaries == ("cat",)
    assert request.forget == {"a": ("dog",)}
    for mapping in (request.forget, request.samples):
        with pytest.raises(TypeError):
            mapping["a"] = ()  # type: ignore[index]


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_are_keys_and_can_be_copied(request_: Request) -> None:
    for again in (copy.deepcopy(request_), pickle.loads(pickle.dumps(request_))):
        assert again == request_
        assert {request_: 1}[again] == 1


def test_all_that_has_an_order_is_a_list_of_names() -> None:
    expected = RollOut(canaries=["a", "b"])
    assert RollOut(canaries=(name for name in "ab")) == expected  # type: ignore[arg-type]
    assert RollOut(canaries=dict.fromkeys("ab").keys()) == expected  # type: ignore[arg-type]
    assert RollOut(canaries=np.array(["a", "b"])) == expected  # type: ignore[arg-type]


def test_numbers_of_numpy_become_plain_ones() -> None:
    wave, method = Wave(count=np.int64(3)), Method(alpha=np.float32(0.5))  # type: ignore[arg-type]
    assert (type(wave.count), type(method.alpha)) == (int, float)
    assert (wave, method) == (Wave(count=3), Method(alpha=0.5))


@pytest.mark.parametrize("size", ["", "ten", "10 %", "-5", "1000%", "1.5"])
def test_a_wave_that_is_neither_share_nor_number_is_refused(size: str) -> None:
    with pytest.raises(RequestError):
        Wave.parse(size)


class Indexed:
    """An object that can be indexed, and so looks like a mapping to some."""

    __iter__ = None

    def __getitem__(self, _: object) -> None:
        """Has nothing."""


@pytest.mark.parametrize("value", [np.array(3), np.array(None), torch.tensor(3), Indexed()])
@pytest.mark.parametrize("field", ["forget", "samples", "method", "roll_out", "id", "client"])
def test_arrays_without_dimensions_are_refused_in_one_line(value: Any, field: str) -> None:
    given: dict[str, Any] = {"forget": {"r": ["cat"]}, field: value}
    with pytest.raises(RequestError, match=f"as {field} in a request, but got") as refused:
        Request(**given)
    assert "\n" not in str(refused.value)
    for waves in ({"waves": value}, {"waves": [value]}, {"canaries": value}):
        with pytest.raises(RequestError, match="but got"):
            RollOut(**waves)


@pytest.mark.parametrize("value", [None, 5, b"10%", ["10%"], object(), np.zeros((3, 3))])
@pytest.mark.parametrize(
    "take",
    [
        Wave.parse,
        Method.from_proto,
        RollOut.from_proto,
        Request.from_proto,
        check_id,
        check_owner,
        check_salt,
        lambda value: Method(merge=value),
    ],
)
def test_what_is_no_text_or_no_message_is_refused_in_one_line(
    take: Callable[[Any], object], value: object
) -> None:
    with pytest.raises(InputError, match="Expected .* but got") as refused:
        take(value)
    assert "\n" not in str(refused.value)


def test_a_wave_has_one_size() -> None:
    assert [str(Wave.parse(size)) for size in ("10%", "0.5%", "25")] == ["10%", "0.5%", "25"]
    with pytest.raises(RequestError, match="but got both"):
        Wave(fraction=0.5, count=1)


def test_requests_load_no_torch() -> None:
    code = "import sys, disinherit.common.wire.requests; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
