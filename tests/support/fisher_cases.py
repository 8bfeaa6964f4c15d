"""Models of every kind, and a naive oracle: one backward pass per sample."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disinherit.common.fisher.classes import ClassFishers

CLASSES = 4


class Bag(nn.Module):
    """Embeddings, mean-pooled: a text classifier."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 5, padding_idx=padding_idx)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, tokens: Tensor) -> Any:
        return self.head(torch.tanh(self.embed(tokens).mean(1)))


class Sequences(nn.Module):
    """Linear layers and layer norm on `[n, T, d]`; the head is followed by a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 6)
        self.norm = nn.LayerNorm((5, 6))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(torch.tanh(self.inner(x)))).mean(1)


class SequenceFirst(Sequences):
    """The same with samples in dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.norm(torch.tanh(self.inner(x.transpose(0, 1))))).mean(0)


class Repeated(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(CLASSES, CLASSES)
        self.head = nn.Linear(CLASSES, CLASSES)
        self.head.weight = self.first.weight

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.first(x)))


class Borrowed(nn.Module):
    """The head's weight is used once more, outside the layer: no hook can see it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(x + self.head.weight.sum(0)))


class Bypassed(nn.Module):
    """The layer is never called, only its parameters are used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return F.linear(x, self.head.weight, self.head.bias)


class AfterHead(nn.Module):
    """Something in place follows the head: the output is the head's own tensor, changed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(x).mul_(2.0)


class Branching(nn.Module):
    """Control flow that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Any:
        rows = [torch.tanh(r * self.scale) if float(r.sum()) > 0 else r * self.scale for r in x]
        return self.head(torch.stack(rows))


class Keeping(nn.Module):
    """Parameters are reached by a list of the model's own; substitutes would go unused."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, CLASSES)
        self.kept = [self.scale]

    def __deepcopy__(self, memo: dict[int, object]) -> "Keeping":
        twin = Keeping().to(self.scale.dtype)
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(x * self.kept[0]))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Any:
        state = x.new_zeros(x.shape[0], 4)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 4)
        self.right = nn.Linear(2, 4)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.head(torch.tanh(self.left(x) + self.right(y)))


class FrozenBody(nn.Module):
    """The body is run without a graph, as transfer learning does: it has no gradient path."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            features = torch.tanh(self.body(x))
        return self.head(features)


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, (2, 3), dilation=(1, 2), padding="same", padding_mode="reflect"),
        nn.GroupNorm(3, 6),
        nn.Tanh(),
        nn.Conv2d(6, 3, 2, padding="valid", bias=False),
        nn.Flatten(),
        nn.LayerNorm(27),
        nn.Dropout(0.5),
        nn.Linear(27, CLASSES),
    )


def conv1d_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.BatchNorm1d(4),
        nn.Tanh(),
        nn.Conv1d(4, 2, 3, padding="same"),
        nn.Flatten(),
        nn.BatchNorm1d(10),
        nn.Linear(10, CLASSES),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(inplace=True), nn.Linear(6, CLASSES, bias=False))


def shared_net() -> nn.Module:
    """One layer under two names."""
    shared = nn.Linear(3, 3)
    return nn.Sequential(
        nn.Linear(3, 3), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(3, CLASSES)
    )


@dataclass(frozen=True)
class Case:
    """A model, its inputs for n samples, and the methods that can do scopes `all` and `head`."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor | tuple[Tensor, ...]]
    all_by: tuple[str, ...]
    head_by: tuple[str, ...]


def _normal(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape, dtype=torch.float64)


def _tokens(n: int) -> Tensor:
    return torch.randint(0, 6, (n, 7))


BOTH, EVERY, GENERAL = ("layers", "vmap"), ("head", "layers", "vmap"), ("vmap",)

CASES = {
    "linear": Case(lambda: nn.Linear(3, CLASSES), _normal(3), EVERY, EVERY),
    "perceptron": Case(perceptron, _normal(3), BOTH, EVERY),
    "conv2d": Case(conv_net, _normal(2, 8, 8), BOTH, EVERY),
    "conv1d": Case(conv1d_net, _normal(2, 10), BOTH, EVERY),
    "text": Case(Bag, _tokens, BOTH, EVERY),
    "padded text": Case(lambda: Bag(padding_idx=2), _tokens, BOTH, EVERY),
    "sequences": Case(Sequences, _normal(5, 3), BOTH, BOTH),
    "sequence first": Case(SequenceFirst, _normal(5, 3), GENERAL, GENERAL),
    "repeated": Case(Repeated, _normal(3), GENERAL, EVERY),
    "shared": Case(shared_net, _normal(3), GENERAL, EVERY),
    "tied": Case(Tied, _normal(CLASSES), GENERAL, GENERAL),
    "borrowed": Case(Borrowed, _normal(3), GENERAL, GENERAL),
    "bypassed": Case(Bypassed, _normal(3), GENERAL, GENERAL),
    "after head": Case(AfterHead, _normal(3), BOTH, BOTH),
    "branching": Case(Branching, _normal(3), (), ("head", "layers")),
    "keeping": Case(Keeping, _normal(3), (), EVERY),
    "recurrent": Case(Recurrent, _normal(4, 3), GENERAL, EVERY),
    "two inputs": Case(
        TwoInputs,
        lambda n: (_normal(3)(n), _normal(2)(n)),
        BOTH,
        EVERY,
    ),
    "frozen body": Case(FrozenBody, _normal(3), BOTH, EVERY),
}


def make(name: str, n: int, seed: int = 0) -> tuple[nn.Module, Tensor | tuple[Tensor, ...], Tensor]:
    """Build a float64 model of a case with lively running statistics, inputs and targets."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        case = CASES[name]
        model = case.build().double()
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 2.0)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        return model, case.inputs(n), torch.randint(0, CLASSES - 1, (n,))


def places(model: nn.Module) -> list[tuple[str, object, int]]:
    """Return every place of a model that holds a parameter: its name, and which object it holds."""
    return [
        (f"{path}.{name}", type(parameter), id(parameter))
        for path, module in model.named_modules(remove_duplicate=False)
        for name, parameter in module._parameters.items()
    ]


def last_layer(model: nn.Module) -> list[str]:
    """Names of the parameters of the linear layer registered last, be it the head or not."""
    layer = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    own = {id(parameter) for parameter in layer.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]


def rows(inputs: Tensor | tuple[Tensor, ...], index: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Take some samples."""
    if isinstance(inputs, Tensor):
        return inputs[index]
    return tuple(tensor[index] for tensor in inputs)


def all_sums(fishers: ClassFishers) -> dict[str, Tensor]:
    """Return the sums of all classes, `[C, *shape]`, zero for those without samples."""
    found = {}
    for name, value in fishers.sums.items():
        found[name] = value.new_zeros(fishers.num_classes, *value.shape[1:])
        found[name][fishers.classes] = value
    return found


def oracle(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], targets: Tensor, classes: int = CLASSES
) -> dict[str, Tensor]:
    """Sum squared gradients per class, `[C, *shape]`, by one backward pass per sample."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    sums = {
        name: torch.zeros(classes, *p.shape, dtype=p.dtype) for name, p in model.named_parameters()
    }
    for i, target in enumerate(targets.tolist()):
        model.zero_grad()
        one = rows(inputs, torch.tensor([i]))
        logits = model(one) if isinstance(one, Tensor) else model(*one)
        torch.autograd.backward(-torch.log_softmax(logits, 1)[0, target])
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name][target] += parameter.grad**2
    return sums
