"""A model observed in forward passes on a few samples: its logits, and the calls of its layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from weakref import ref

import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.models.forward import check_logits
from disinherit.common.models.inputs import Inputs, as_arguments, refused_inputs, to_device
from disinherit.common.models.substitution import call_with, unchanged

PROBED = 8
"""Number of samples in the forward passes."""

Change = Callable[[Tensor], Tensor]
"""Change of a layer's output."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a layer, without keeping its output alive."""

    output: ref[Tensor]
    version: int
    dtype: torch.dtype

    def returned(self, logits: Tensor) -> bool:
        """Whether the layer's output is what the model returned, unchanged."""
        return self.output() is logits and logits._version == self.version


class ObservedModel:
    """A model in eval mode, a few samples, and the responses of its logits.

    Args:
        model: the model.
        inputs: the samples, as its positional arguments.

    Attributes:
        logits: its logits `[n, C]`.
        classes: their number for each sample.
        layers: path -> linear layer or convolution with as many rows.
        step: a size of changes that the logits respond to beyond rounding errors.
        relative: rounding error of logits, relative to the largest.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        self._model = model
        self._inputs = inputs
        layers = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, (nn.Linear, *_CONVOLUTIONS)) and module.weight.is_floating_point()
        }
        self.logits, self._calls = self._observed(layers)
        self.classes = self.logits.shape[1]
        self.layers = {p: m for p, m in layers.items() if len(m.weight) == self.classes}
        spread = float(self.logits.float().std())
        self.step = spread if 0 < spread < float("inf") else 1.0
        # The eps of the coarsest dtype involved; a float64 result may have been float32 before.
        dtypes = {call.dtype for path in self.layers for call in self._calls[path]}
        eps = max(torch.finfo(dtype).eps for dtype in dtypes | {self.logits.dtype, torch.float32})
        half = eps > torch.finfo(torch.float32).eps
        self.relative = (4 if half else 100) * eps
        if half:
            self.step *= 8  # to exceed rounding errors

    def is_called(self, path: str) -> bool:
        """Whether the model calls a layer."""
        return bool(self._calls[path])

    def returns(self, path: str) -> bool:
        """Whether the model's output is that of the only call of a layer, unchanged."""
        calls = self._calls[path]
        return len(calls) == 1 and calls[0].returned(self.logits)

    def changed(self, changes: Mapping[str, Change]) -> Tensor:
        """Return the logits with some layers' outputs changed."""
        with ExitStack() as hooks:
            for path, change in changes.items():
                hook = _changing(change)
                layer = self.layers[path]
                hooks.callback(layer.register_forward_hook(hook, prepend=True).remove)
            return self.run()

    def added(self, path: str, delta: Tensor) -> Tensor:
        """Return the logits with a vector `[C]` added to each output of a layer."""
        shaped = delta.view(-1, *[1] * (-1 - _class_dim(self.layers[path])))
        return self.changed({path: lambda output: output + shaped.to(output.device, output.dtype)})

    def run(self, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the logits, with some parameters replaced."""
        # Copies: a model may change its inputs in place.
        inputs = [tensor.clone() for tensor in self._inputs]
        if parameters is None:
            return check_logits(self._model(*inputs), len(inputs[0]))
        return check_logits(call_with(self._model, parameters, inputs), len(inputs[0]))

    def tolerance(self, *logits: Tensor) -> float:
        """Return the rounding error of logits."""
        return self.relative * max(float(value.abs().max()) for value in (self.logits, *logits))

    def _observed(self, layers: Mapping[str, nn.Module]) -> tuple[Tensor, dict[str, list[_Call]]]:
        """Return the logits, and the calls of some layers."""
        calls: dict[str, list[_Call]] = {path: [] for path in layers}

        def noting(path: str) -> Callable[..., None]:
            def note(_: nn.Module, __: object, output: object) -> None:
                if isinstance(output, Tensor) and output.is_floating_point():
                    calls[path].append(_Call(ref(output), output._version, output.dtype))

            return note

        with ExitStack() as hooks:
            for path, layer in layers.items():
                hooks.callback(layer.register_forward_hook(noting(path), prepend=True).remove)
            return self.run(), calls


@contextmanager
def observed(model: nn.Module, inputs: Inputs) -> Iterator[ObservedModel]:
    """Observe a model in eval mode on a few samples, and restore it afterwards.

    Args:
        model: maps inputs to logits `[n, C]`.
        inputs: a tensor `[n, ...]`, or several, passed as positional arguments.

    Yields:
        The observed model.

    Raises:
        FisherError: if the inputs are no tensors, or the model does not return logits.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    few = to_device([tensor[:PROBED] for tensor in as_arguments(inputs)], device)
    with _at_rest(model), torch.inference_mode(False), torch.no_grad():
        try:
            found = ObservedModel(model, few)
        except (FisherError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, TypeError, ValueError, LookupError, MemoryError) as error:
            raise refused_inputs(model, 0, few, device, error) from error
        yield found


def _class_dim(layer: nn.Module) -> int:
    """Return the class dimension of a layer's output, counted from the end."""
    return -1 if isinstance(layer, nn.Linear) else -len(layer.kernel_size) - 1  # type: ignore[arg-type]


def _changing(change: Change) -> Callable[..., Tensor]:
    return lambda _module, _args, output: change(output)


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, uncompiled so that hooks are called; restore it afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with unchanged(model), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
