"""Settings: what is refused, what survives JSON, and how a request is read."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import DataError, InputError, RequestError
from disinherit.common.method import Method
from disinherit.simulations.data.backdoors import Backdoor
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.scenario.scenarios import FEDERATED, load_scenario
from disinherit.simulations.scenario.settings import Settings, check_forget, parse_forget

THREE = Settings("digits", {"r1": ("3",)})

CHANGES: dict[str, Any] = {
    "dataset": "mnist5k",
    "forget": {"r1": ("4",)},
    "scenario": load_scenario("transfer"),
    "network": "mlp",
    "clients": 4,
    "partition": "dirichlet",
    "concentration": 0.6,
    "classes_per_client": 3,
    "epochs": 5,
    "learning_rate": 2e-3,
    "batch_size": 65,
    "limit": 10,
    "seed": 1,
    "device": "cpu",
    "method": Method(alpha=2.0),
    "compare_published": True,
    "backdoor": Backdoor(1, "3", "5", 10),
    "patience": 3,
}


DIGITS = load_dataset("digits")


@pytest.fixture
def digits() -> Dataset:
    return DIGITS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clients": 0}, "clients >= 1, but got 0"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"patience": 0}, "patience of 1 epoch or more, but got 0"),
        ({"limit": 0}, "limit >= 1"),
        ({"classes_per_client": 0}, "classes_per_client >= 1"),
        ({"learning_rate": 0.0}, "learning rate > 0, but got 0"),
        ({"learning_rate": math.inf}, "learning rate > 0"),
        ({"learning_rate": math.nan}, "learning rate > 0"),
        ({"concentration": 0.0}, "concentration > 0"),
        ({"concentration": math.nan}, "concentration > 0"),
        ({"seed": -1}, "seed from 0"),
        ({"seed": 2**63}, "seed from 0"),
        ({"network": "gpt"}, "network among .*cnn.*, but got 'gpt'"),
        ({"partition": "fair"}, "partition among .*iid.*, but got 'fair'"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(THREE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha > 0, but got 0"),
        ({"alpha": -1.0}, "alpha > 0"),
        ({"alpha": math.nan}, "alpha > 0"),
        ({"lam": 0.0}, "lambda > 0"),
        ({"gauge": -0.1}, "gauge >= 0"),
        ({"exponent": 0.0}, "exponent > 0"),
        ({"bound": 1.5}, "bound <= 1"),
        ({"merge": "median"}, "merge to be one of max, mean, sum, but got 'median'"),
        ({"reference": "none"}, "reference to be one of retain, all"),
        ({"scope": ""}, "scope"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused_before_any_training(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        Settings("digits", {"r1": ("3",)}, method=Method(**change))


def test_settings_survive_json() -> None:
    settings = dataclasses.replace(THREE, **CHANGES)
    again = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert again.digest == settings.digest


def test_settings_without_a_patience_are_those_of_stored_runs() -> None:
    """Ids of requests and names of stored cases follow from them."""
    assert "patience" not in THREE.to_dict()


def test_every_field_has_a_change_that_makes_another_run() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Settings)}
    changed = [dataclasses.replace(THREE, **{name: CHANGES[name]}) for name in CHANGES]
    assert len({settings.digest for settings in [THREE, *changed]}) == len(CHANGES) + 1
    assert len({settings.request().id for settings in [THREE, *changed]}) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("forget"),
        lambda values: values.update(forget=["3"]),
        lambda values: values.update(method=None),
        lambda values: values.update(epochs="4"),
        lambda values: values.update(surplus=1),
        lambda values: values["method"].update(alpha="strong"),
    ],
)
def test_values_that_are_no_settings_are_refused(damage: Any) -> None:
    values = THREE.to_dict()
    damage(values)
    with pytest.raises(InputError, match="Expected the settings of a run"):
        Settings.from_dict(values)


def test_unset_method_values_travel_unset() -> None:
    message = Method(lam=0.5).to_proto()
    assert message.lam == 0.5
    assert not message.HasField("alpha")
    assert not message.HasField("gauge")
    assert (message.scope, message.reference, message.merge) == ("head", "retain", "max")
    assert message.row_scoped


def test_the_published_rule_is_the_same_whatever_is_compared_with_it() -> None:
    published = Method(scope="all", alpha=2.0).published()
    assert published == Method(
        scope="all",
        reference="all",
        alpha=2.0,
        gauge=0.0,
        row_scoped=False,
        rescale=False,
        mechanism="fisher",
    )
    unlike = Method(
        scope="all",
        reference="retain",
        merge="sum",
        alpha=2.0,
        gauge=3.0,
        exponent=0.5,
        bound=0.5,
        encoding="log8",
        repair_steps=50,
        min_inheritance=0.5,
        mechanism="delta",
        root_method="replay",
        delta_encoding="int8",
        delta_rank=4,
        calibration_rounds=3,
    )
    default = Method()
    same = [
        f.name
        for f in dataclasses.fields(default)
        if getattr(unlike, f.name) == getattr(default, f.name)
    ]
    assert set(same) <= {"reference", "row_scoped", "rescale", "lam"}, "all others are tried"
    assert unlike.published() == published


def test_the_request_names_roots_and_classes() -> None:
    request = Settings("digits", {"r1": ("3", "5"), "r2": ("8",)}).request()
    assert request.forget == {"r1": ("3", "5"), "r2": ("8",)}
    assert request.reason == "forget 3, 5 at r1; 8 at r2"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["3"], {"r1": ("3",)}),
        (["3", "5"], {"r1": ("3", "5")}),
        (["3@r2", "5"], {"r2": ("3",), "r1": ("5",)}),
        (["3@d", "5@d"], {"d": ("3", "5")}),
    ],
)
def test_forget_is_read_as_class_at_root(
    tokens: list[str], expected: dict[str, tuple[str, ...]], digits: Dataset
) -> None:
    assert parse_forget(tokens, digits, FEDERATED) == expected


def test_a_class_whose_name_has_an_at_sign_is_a_class(digits: Dataset) -> None:
    odd = dataclasses.replace(digits, classes=("me@home", *digits.classes[1:]))
    assert parse_forget(["me@home"], odd, FEDERATED) == {"r1": ("me@home",)}
    assert parse_forget(["me@home@r3"], odd, FEDERATED) == {"r3": ("me@home",)}


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([], RequestError, "at least one class to forget"),
        (["3", "3"], RequestError, "'3' twice"),
        (["3", "3@r2"], RequestError, "'3' twice"),
        (["3@r9"], RequestError, "root among d, s, r1.*'r9'"),
        (["x"], DataError, "'x'"),
        ([str(c) for c in range(9)], RequestError, "at least two .* remain, but 9"),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    tokens: list[str], error: type[Exception], message: str, digits: Dataset
) -> None:
    with pytest.raises(error, match=message):
        parse_forget(tokens, digits, FEDERATED)


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ({}, "at least one class"),
        ({"r1": ()}, "classes to forget at root 'r1'"),
        ({"r9": ("3",)}, "root among d, s"),
        ({"r1": ("three",)}, "class among 0, 1.*'three'"),
        ({"r1": ("3",), "r2": ("3",)}, "'3' twice"),
    ],
)
def test_settings_from_a_program_are_checked_like_a_persons(
    forget: dict[str, tuple[str, ...]], message: str, digits: Dataset
) -> None:
    with pytest.raises(RequestError, match=message):
        check_forget(forget, digits, FEDERATED)


@given(
    st.dictionaries(
        st.sampled_from(FEDERATED.ids), st.lists(st.integers(0, 9), min_size=1, max_size=3)
    )
)
def test_what_was_read_can_be_written_and_read_again(wanted: dict[str, list[int]]) -> None:
    digits = DIGITS
    tokens = [f"{name}@{root}" for root, names in wanted.items() for name in names]
    distinct = {name for names in wanted.values() for name in names}
    possible = len(distinct) == len(tokens) and 1 <= len(distinct) <= 8
    if not possible:
        with pytest.raises(RequestError):
            parse_forget(tokens, digits, FEDERATED)
    else:
        parsed = parse_forget(tokens, digits, FEDERATED)
        assert parsed == {root: tuple(map(str, names)) for root, names in wanted.items()}


def test_values_about_changes_of_roots_leave_settings_of_before_as_they_were() -> None:
    plain = Settings("fashion-mnist", {})
    assert plain.to_dict()["method"] == {
        **{"scope": "head", "reference": "retain", "merge": "max"},
        **{"alpha": None, "lam": None, "gauge": None, "exponent": 1.0, "bound": 1.0},
        **{"row_scoped": True, "encoding": "full", "repair_steps": 0},
        **{"min_inheritance": 0.0, "rescale": True},
    }
    for steps in (None, 0, 5):
        method = Method(mechanism="delta", root_method="replay", repair_steps=steps)
        changed = dataclasses.replace(plain, method=method)
        assert Settings.from_dict(changed.to_dict()) == changed
