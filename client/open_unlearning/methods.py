"""Root methods that are trainers of open-unlearning (https://github.com/locuslab/open-unlearning).

A method has the loss, and the settings that the configuration of the trainer has in the folder of
open-unlearning: rates and passes are the owner's to choose there.  Model and samples go to a
process of its own, in files that only this user can read, and are deleted after it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from disinherit.client.huggingface.forms import known_form, original
from disinherit.client.open_unlearning.checkout import Checkout, find
from disinherit.client.owner.choosing import request_seed
from disinherit.client.owner.owner import Batches, load_network
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import refusal_to_train
from disinherit.common.errors import DataError
from disinherit.common.models.inputs import as_arguments
from disinherit.common.text import one_line

_MASK = "attention_mask"
_NAMES = ("input_ids", _MASK, "labels")
_FORGETS_ONLY = ("GradAscent", "CEU")
"""Trainers that need no retained data."""


@dataclass(frozen=True, slots=True)
class OpenUnlearning:
    """A trainer of open-unlearning.

    Attributes:
        trainer: name of its class and configuration.
    """

    trainer: str

    @property
    def name(self) -> str:
        """The name of its entry point."""
        return f"open-unlearning-{self.trainer.lower()}"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse where it is not installed, models of other kinds, and samples that are gone."""
        found = find(self.trainer)
        if isinstance(found, str):
            return found
        id = problem.record.id
        if self.trainer not in _FORGETS_ONLY and (
            reason := refusal_to_train(problem, forgets=True)
        ):
            return reason
        if problem.forget is None:
            return f"The samples that model {id!r} has to forget are gone."
        network = problem.owner.network(problem.record)
        form = known_form(network)
        if form is None or form.task != "causal-lm" or not isinstance(network, PreTrainedModel):
            return (
                f"Trainers of open-unlearning are for causal language models, and {id!r} is none."
            )
        if hasattr(network, "peft_config"):
            return f"Model {id!r} has an adapter, which trainers of open-unlearning are not for."
        if other := sorted({*form.arguments} - {*_NAMES}):
            return (
                f"Model {id!r} is called with {other[0]}, which trainers of open-unlearning drop."
            )
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the root after the training.

        Raises:
            DataError: if the training fails, or ends in other values than finite ones.
        """
        found = find(self.trainer)
        assert isinstance(found, Checkout)
        id = problem.record.id
        try:
            with TemporaryDirectory(prefix="disinherit-") as name:
                job = _write(problem, Path(name))
                device = problem.owner.device
                steps = found.run(Path(name), self.trainer, job, device.type, device.index)
                changed = load_file(Path(name) / "changed.safetensors")
        except OSError as error:
            raise DataError(
                f"Expected room for a copy of model {id!r} and its samples in the folder for "
                f"temporary files, but got: {one_line(str(error), 200)}."
            ) from error
        for key, value in changed.items():
            if value.shape != problem.weights[key].shape or not bool(value.isfinite().all()):
                raise DataError(
                    f"Expected trainer {self.trainer} to end in finite weights of model {id!r}, "
                    f"but {key!r} has others: it diverged. Lower its learning rate."
                )
            changed[key] = value.to(problem.weights[key].dtype)
        return UnlearnedRoot(
            {**problem.weights, **changed},
            steps=steps,
            note=f"trainer {self.trainer} of open-unlearning, {steps} steps",
        )


def _write(problem: RootProblem, work: Path) -> dict[str, Any]:
    """Write model and samples into a folder, and return what the driver has to know beside them."""
    owner, record = problem.owner, problem.record
    network = load_network(owner, record, problem.weights)
    form = known_form(network)
    assert form is not None
    assert problem.forget is not None
    forget = _samples(problem.forget, form.arguments)
    save_file(forget, work / "forget.safetensors")
    if problem.retain is not None and (retain := _samples(problem.retain, form.arguments)):
        save_file(retain, work / "retain.safetensors")
    with torch.no_grad():
        first = {name: value[:1].to(owner.device) for name, value in forget.items()}
        loss = network(**first).loss.item()
    model: Any = original(network.cpu())
    dtype = model.dtype
    model.save_pretrained(work / "model")
    _write_for_earlier(work / "model" / "config.json")
    return {
        "may_change": list(problem.names),
        "dtype": str(dtype).removeprefix("torch."),
        "seed": request_seed(problem.request_id, record.id) % 2**32,
        "loss": loss,
    }


def _samples(batches: Batches, arguments: tuple[str, ...]) -> dict[str, Tensor]:
    """Return all samples `[n, T]` by name; nothing without any."""
    parts: dict[str, list[Tensor]] = {name: [] for name in arguments}
    for inputs, _ in batches:
        for name, value in zip(arguments, as_arguments(inputs), strict=True):
            parts[name].append(value.cpu())
    found = {name: torch.cat(some).contiguous() for name, some in parts.items() if some}
    if found and _MASK not in found:
        found[_MASK] = torch.ones_like(found["input_ids"])
    return found


def _write_for_earlier(file: Path) -> None:
    """Add what releases of transformers before 5 read to a configuration."""
    config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    rope = config.get("rope_parameters")
    if isinstance(rope, Mapping) and "rope_theta" in rope:
        others = {key: value for key, value in rope.items() if key != "rope_theta"}
        plain = others.get("rope_type", "default") == "default"
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None if plain else others}
    file.write_text(json.dumps(config), "utf-8")


CEU = partial(OpenUnlearning, "CEU")
GRAD_ASCENT = partial(OpenUnlearning, "GradAscent")
GRAD_DIFF = partial(OpenUnlearning, "GradDiff")
NPO = partial(OpenUnlearning, "NPO")
PDU = partial(OpenUnlearning, "PDU")
RMU = partial(OpenUnlearning, "RMU")
SAT_IMP = partial(OpenUnlearning, "SatImp")
SIM_NPO = partial(OpenUnlearning, "SimNPO")
UNDIAL = partial(OpenUnlearning, "UNDIAL")
WGA = partial(OpenUnlearning, "WGA")
