"""Forms of models: how a model of transformers is called with tensors, and answers with logits.

Everything else here calls a network with tensors in an order and wants logits `[n, C]`.  Models of
transformers take names and return an output with names; language models have logits of each token.
`answering` closes that gap at one place: a positional call is answered as a classifier would, and a
call by names as transformers has it, so that its own `generate` goes on working.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

from disinherit.client.huggingface.names import OwnNames, base_of
from disinherit.common.errors import InputError
from disinherit.common.graph.labels import SEQUENCES
from disinherit.common.models.sequences import AnswersSequences, as_logits, sequence_losses

LABELS = "labels"

_CLASSIFIERS = frozenset(
    name
    for names in (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )
    for some in names.values()
    for name in ([some] if isinstance(some, str) else some)
)
_LANGUAGE_MODELS = frozenset(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is called, and what its samples are.

    Attributes:
        task: `classification`, a sample has a class; or `causal-lm`, a sample is a sequence.
        arguments: names of the model's inputs in the order of a positional call; those of a
            language model end with the labels of its tokens.
        labels: class names; `SEQUENCES` for a language model.
        fixed: arguments that are the same in every call.
    """

    task: Literal["classification", "causal-lm"]
    arguments: tuple[str, ...]
    labels: tuple[str, ...]
    fixed: Mapping[str, object]


def form_of(model: nn.Module, example: Mapping[str, object]) -> Form:
    """Return the form of a model.

    Args:
        model: a model of transformers with a head, or of PEFT around one.
        example: a batch as the model takes it; values that it does not take are ignored.

    Raises:
        InputError: if it is another kind of model, or takes nothing of the batch.
    """
    inner = base_of(model)
    if not isinstance(inner, PreTrainedModel):
        raise InputError(
            f"Expected a model of transformers, or of PEFT around one, but got a "
            f"{type(inner).__name__}."
        )
    # An answering model is a subclass of what transformers has.
    kinds = {kind.__name__ for kind in type(inner).__mro__}
    taken = [*inspect.signature(_original(inner).forward).parameters][1:]  # without self
    fixed: dict[str, object] = {"return_dict": True}
    if "use_cache" in taken:
        fixed["use_cache"] = False
    given = [name for name in taken if isinstance(example.get(name), Tensor) and name != LABELS]
    if not given:
        raise InputError(
            f"Expected a batch with inputs of {type(inner).__name__} ({', '.join(taken[:4])}, ...) "
            f"but the numbers that it has are {', '.join(map(str, example)) or 'none'}."
        )
    if kinds & _LANGUAGE_MODELS and not inner.config.is_encoder_decoder:
        return Form("causal-lm", (*given, LABELS), SEQUENCES, fixed)
    if not kinds & _CLASSIFIERS:
        raise InputError(
            f"Expected a sequence classifier, an image classifier or a causal language model of "
            f"transformers, but got a {type(inner).__name__}."
        )
    problem = getattr(inner.config, "problem_type", None)
    if problem not in (None, "single_label_classification") or inner.config.num_labels < 2:
        raise InputError(
            f"Expected a {type(inner).__name__} with one class for each sample, but got "
            f"{problem or 'regression'} with {inner.config.num_labels} outputs."
        )
    names = inner.config.id2label
    labels = tuple(str(names[index]) for index in range(inner.config.num_labels))
    return Form("classification", tuple(given), labels, fixed)


class _Answering(OwnNames):
    """Adds positional calls to a class of transformers."""

    _kind: type[Any]
    _form: Form

    def forward(self, *inputs: Tensor, **named: Any) -> Any:
        """Return logits `[n, C]` of a positional call, else what the model itself returns."""
        if not inputs:
            return super().forward(**named)  # type: ignore[misc]
        return super().forward(**self._named(inputs)).logits  # type: ignore[misc]

    def _named(self, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
        return {**dict(zip(self._form.arguments, inputs, strict=True)), **self._form.fixed}


class _Sequences(_Answering, AnswersSequences):
    """The same for language models."""

    def forward(self, *inputs: Tensor, **named: Any) -> Any:
        """Return logits `[n, 2]` of a positional call, else what the model itself returns."""
        if not inputs:
            return super().forward(**named)
        return as_logits(sequence_losses(*self.token_logits(*inputs)))

    def token_logits(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of tokens `[n, T, V]` and labels `[n, T]`."""
        named = self._named(inputs)
        labels = named.pop(LABELS)
        return super().forward(**named).logits, labels


def answering(model: nn.Module, form: Form) -> nn.Module:
    """Let a model answer positional calls, in place, and return it.

    A model of PEFT answers by its base model, in which the adapters sit.  Tensors have the names of
    the base model (`OwnNames`), so that changes of the base fit.  A model that recomputes its
    activations does so in training mode only, as without it.

    Args:
        model: the model.
        form: its form.

    Returns:
        The model, or the base model of a PEFT model.

    Raises:
        InputError: if an adapter sits outside of the base model's layers.
    """
    inner: Any = base_of(model)
    kind = _original(inner)
    mixin = _Answering if form.task == "classification" else _Sequences
    own = {"__module__": kind.__module__, "_kind": kind}
    inner.__class__ = type(kind.__name__, (mixin, kind), own)
    inner._form = form
    if mixin is _Sequences:
        inner.vocabulary = int(inner.config.get_text_config().vocab_size)
    answers: nn.Module = inner
    return answers


def known_form(model: nn.Module) -> Form | None:
    """Return the form by which a model answers positional calls; `None` if it does not."""
    inner = base_of(model)
    return inner._form if isinstance(inner, _Answering) else None


def original(model: nn.Module) -> nn.Module:
    """Undo `answering`, in place, and return the model."""
    model.__class__ = _original(model)
    return model


def _original(model: nn.Module) -> type[Any]:
    """Return the class of a model as transformers has it."""
    kind = type(model)
    return kind._kind if issubclass(kind, _Answering) else kind
