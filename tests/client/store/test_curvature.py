"""Registered curvature in a store: it stays with its version, and goes with it."""

from pathlib import Path

import pytest
import torch

from disinherit.client.store.store import ModelStore
from disinherit.common.curvature.ekfac import Curvature, LayerCurvature
from disinherit.common.errors import StoreError
from tests.support.stored_models import make_application, make_record, make_weights


def make_curvature(value: float = 1.0) -> Curvature:
    layer = LayerCurvature(True, torch.eye(2), torch.eye(3), torch.full((2, 3), value))
    return Curvature({"head": layer}, 5)


def files(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").iterdir()}


def test_it_is_kept_over_openings_and_replaced(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "anna") as store:
        store.add(make_record(), make_weights())
        assert not store.has_curvature("m")
        store.set_curvature("m", make_curvature())
        store.set_curvature("m", make_curvature(2.0))
    for _ in range(2):
        with ModelStore(tmp_path, "anna") as store:
            found = store.curvature("m")
            assert found is not None
            assert found.names == ("head.weight", "head.bias")
            assert torch.equal(found.layers["head"].values, torch.full((2, 3), 2.0))
            assert len(files(tmp_path)) == 2


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "anna") as store:
        with pytest.raises(StoreError, match="'m', which is not there"):
            store.set_curvature("m", make_curvature())
        with pytest.raises(StoreError, match="'m', which is not there"):
            store.curvature("m")


def test_it_is_destroyed_with_its_version_and_not_inherited(tmp_path: Path) -> None:
    with ModelStore(tmp_path, "anna") as store:
        store.add(make_record(), make_weights())
        store.set_curvature("m", make_curvature())
        before = files(tmp_path)
        application = make_application()
        store.apply(application)
        assert store.has_curvature("m")
        assert not store.has_curvature(application.successor.id)
        store.destroy(application.request_id, {"m": make_record().digest})
        gone = before - files(tmp_path)
        assert len(gone) == 2
        with pytest.raises(StoreError):
            store.curvature("m")
