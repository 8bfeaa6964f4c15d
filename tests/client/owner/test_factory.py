"""The function that opens an owner's models: loaded, or refused in one line."""

import pytest

from disinherit.client.owner.factory import load_function
from disinherit.common.errors import InputError


def test_a_function_is_found_by_its_name() -> None:
    assert load_function("disinherit.client.owner.factory:load_function") is load_function


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "module:function, but got ''"),
        ("math.sqrt", "module:function, but got 'math.sqrt'"),
        ("os:system:x", "module:function"),
        ("no_such_module:f", "'no_such_module:f'.*No module named 'no_such_module'"),
        ("math:nothing", "'math:nothing'.*nothing"),
    ],
)
def test_a_missing_function_is_refused(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_function(name)
