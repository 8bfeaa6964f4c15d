"""One observed forward pass: inputs of every layer, and uses of every parameter."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from disinherit.common.errors import FisherError
from disinherit.common.models.devices import exact_convolutions
from disinherit.common.models.substitution import unchanged


class Unsupported(Exception):  # noqa: N818 - a reason to take another method, not an error
    """This method would be wrong for this model; another one may work.  Nothing was summed."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer with one input tensor and one output tensor.

    Attributes:
        input: input of the layer.
        output: its output, before any user hook.
        edge: the place of `output` in the autograd graph: unlike the tensor itself it still refers
            to the layer's output after a later in-place operation such as `nn.ReLU(inplace=True)`.
            `None` without a graph.
        input_version: version of `input`, to detect a later change in place.
        output_version: the same for `output`.
    """

    input: Tensor
    output: Tensor
    edge: GradientEdge | None
    input_version: int
    output_version: int

    @property
    def is_input_intact(self) -> bool:
        """Whether `input` still has the values that the layer received."""
        return self.input._version == self.input_version

    def without_graph(self) -> "Call":
        """Return the same call, of which nothing can be differentiated."""
        return replace(self, input=self.input.detach(), output=self.output.detach(), edge=None)

    def is_model_output(self, logits: Tensor) -> bool:
        """Whether the layer's output is what the model returned."""
        if self.output.shape != logits.shape or self.output._version != self.output_version:
            return False
        return self.output is logits or torch.equal(self.output.to(logits.dtype), logits)


# A call of another form than `Call` is None: only a general method can handle it.
Calls = Mapping[str, Sequence[Call | None]]


def observe(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Tensor]
) -> tuple[Tensor, Calls]:
    """Run the model once and record the calls of some of its layers.

    Returns:
        The logits `[n, C]`, and the calls of each layer in order.
    """
    with observed(layers) as calls:
        logits = model(*inputs)
    return check_logits(logits, inputs[0].shape[0]), calls


@contextmanager
def observed(layers: Mapping[str, nn.Module]) -> Iterator[Calls]:
    """Record the calls of some layers within the block.

    Yields:
        The calls of each layer in order, which grow as the model runs.
    """
    calls: dict[str, list[Call | None]] = {path: [] for path in layers}
    handles = []
    try:
        for path, layer in layers.items():
            # Before all other hooks: a user hook may replace the output.
            handles.append(
                layer.register_forward_hook(_Recorder(calls[path]), prepend=True, with_kwargs=True)
            )
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    def __init__(self, calls: list[Call | None]) -> None:
        self._calls = calls

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        given = [*args, *kwargs.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(output, Tensor):
            self._calls.append(None)
            return
        edge = get_gradient_edge(output) if output.requires_grad else None
        self._calls.append(Call(given[0], output, edge, given[0]._version, output._version))


def check_logits(logits: object, size: int) -> Tensor:
    """Return the model's output, checked to be one row of logits per sample.

    Raises:
        FisherError: if it is anything else.
    """
    if not isinstance(logits, Tensor):
        raise FisherError(
            f"Expected the model to return logits [{size}, C], but got {type(logits).__name__}; "
            f"wrap it so that it returns the logits alone."
        )
    if logits.ndim != 2 or logits.shape[0] != size or not logits.is_floating_point():
        raise FisherError(
            f"Expected the model to return floating-point logits [{size}, C] for {size} "
            f"sample(s), but got {logits.dtype} of shape {list(logits.shape)}."
        )
    return logits


def count_uses(logits: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Count how often each parameter enters the computation of `logits`.

    Returns:
        Name -> number of edges in the autograd graph that end in the parameter: 0 for one without
        a gradient path, more than 1 for one that is tied or in a layer that is called repeatedly.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    uses = dict.fromkeys(parameters, 0)
    seen: set[Node] = set()
    stack = [] if logits.grad_fn is None else [logits.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if following is None:
                continue
            name = names.get(id(getattr(following, "variable", None)))
            if name is None:
                stack.append(following)
            else:
                uses[name] += 1
    return uses


@contextmanager
def prepared(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Put the model in eval mode with gradients for `names` only; restore every flag afterwards.

    Yields:
        Nothing; the model is restored afterwards, also after an error.

    Raises:
        FisherError: if a layer normalises by statistics of the batch even in eval mode.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise FisherError(
                f"Expected batch norm with running statistics, but got {path!r} without: it "
                f"normalises by the batch, so that no sample has a gradient of its own."
            )
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    wanted = {id(model.get_parameter(name)) for name in names}
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        with unchanged(model), exact_convolutions():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
