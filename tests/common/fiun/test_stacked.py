"""Many models at once against one after the other, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.common.errors import FisherError
from disinherit.common.fiun.stacked import unlearn_stacked
from disinherit.common.fiun.unlearning import unlearn_parameters


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    models=st.integers(1, 5),
    classes=st.integers(1, 5),
    width=st.integers(1, 7),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    gauge=st.sampled_from([0.0, 1.0, 1.5]),
    exponent=st.sampled_from([1.0, 0.5]),
    rows=st.sampled_from([None, (), (0,), (0, 0)]),
    bias=st.booleans(),
    cleared=st.lists(st.sampled_from([(), (0,)]), min_size=5, max_size=5),
)
def test_stacked_models_equal_single_ones(
    seed: int,
    models: int,
    classes: int,
    width: int,
    dtype: torch.dtype,
    gauge: float,
    exponent: float,
    rows: tuple[int, ...] | None,
    bias: bool,
    cleared: list[tuple[int, ...]],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (2, 3, 2), "scale": (), "head": (classes, width)}
    if bias:
        shapes |= {"bias": (classes,), "second": (classes, 2, 1)}

    def values(*stack: int) -> dict[str, torch.Tensor]:
        return {n: torch.rand((*stack, *shape), generator=generator) for n, shape in shapes.items()}

    theta = {name: (2 * value - 1).to(dtype) for name, value in values(models).items()}
    forget, reference = values(), values(models)
    reference["head"][:, :, 0] = 0
    options = {
        "alpha": 0.8,
        "lam": 0.5,
        "exponent": exponent,
        "gauge": gauge,
        "heads": [("head", "bias"), ("second", None)] if bias else [("head", None)],
        "forgotten_rows": rows,
    }
    before = {name: value.clone() for name, value in theta.items()}
    together = unlearn_stacked(
        theta,
        forget,
        reference,
        **options,  # type: ignore[arg-type]
        cleared_rows=cleared[:models],
    )
    for model in range(models):
        alone = unlearn_parameters(
            {name: value[model] for name, value in theta.items()},
            forget,
            {name: value[model] for name, value in reference.items()},
            **options,  # type: ignore[arg-type]
            cleared_rows=cleared[model],
        )
        for name in shapes:
            found = together.parameters[name][model]
            assert found.dtype == dtype
            assert torch.equal(found, alone.parameters[name])
            assert torch.equal(together.selected[name][model], alone.selected[name])
    assert all(torch.equal(theta[name], before[name]) for name in shapes)


@pytest.mark.parametrize("changed", [{}, {"w": torch.ones(2)}, {"w": torch.ones(4, 3)}])
def test_fishers_that_do_not_fit_are_refused(changed: dict[str, torch.Tensor]) -> None:
    theta = {"w": torch.ones(4, 2)}
    with pytest.raises(FisherError, match=r"Fishers of shapes \[2\] and \[4, 2\] for 'w'"):
        unlearn_stacked(theta, {"w": torch.ones(2)}, changed)
