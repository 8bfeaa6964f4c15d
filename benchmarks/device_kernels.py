"""Every kernel of the core on one device: right against float64 on a CPU, and how long it takes.

    python benchmarks/device_kernels.py --device cuda --out docs/figures/performance

Each kernel computes what a slow, obvious way computes in float64 on the CPU: one backward pass for
each sample, a rule by its formula, a sum. The table has the largest error beside the largest value;
a larger one than the dtype explains ends the run.

bound     of what is dominated by memory: the bytes that must be moved, over the rate of copying
forward   of what looks at data: the model over the same samples, in eval mode

Some two minutes on a CPU; sizes for a GPU are larger, and take less than ten minutes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from head_fisher import CASES, random_batches
from measuring import Claim, Figures, report
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.dampening.logits import CachedLogits
from disinherit.client.dampening.tuning import FixedStrength, tune
from disinherit.common.curvature.ekfac import measure
from disinherit.common.deltas.changes import add
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fiun.dampening import dampen_
from disinherit.common.fiun.stacked import unlearn_stacked
from disinherit.common.fiun.unlearning import StrengthGrid, unlearn_parameters
from disinherit.common.models.devices import is_accelerator, wait_for

ALPHA, LAM = 1.0, 0.5
HEAD = ("head.weight", "head.bias")
MOST_ERROR = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.2}
"""Largest error of a kernel beside the largest value of its result, by the model's dtype."""


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes: only shows it runs")
    parser.add_argument("--out", type=Path, help="folder to store the figures in")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(torch.device(options.device), options.reduced)
    rows = [
        *bench.fishers("cnn", torch.float32),
        *bench.fishers("transformer", torch.float32),
        *bench.fishers("transformer", torch.bfloat16),
        *([] if options.reduced else bench.fishers("resnet18", torch.float32)),
        bench.curvature("cnn"),
        bench.tuning("cnn"),
        bench.dampening(torch.float32),
        bench.dampening(torch.bfloat16),
        bench.adding(torch.float32),
        bench.adding(torch.bfloat16),
        bench.several(),
    ]
    wrong = [row for row in rows if not row["error"] <= row["allowed"]]
    if wrong:
        raise SystemExit(f"Expected every kernel to be right, but got {wrong}.")
    kind = bench.device.type
    claims = [
        Claim(13, f"{row['kernel']} / bound, {bench.name}", row["ratio"], at_most=2.0, limit=1.0)
        for row in rows
        if row["over"] == "bound"
    ]
    title = f"Kernels on {bench.name}: largest error, seconds, ratio to what they cannot be below"
    name = "device_kernels" if kind == "cpu" else f"device_kernels_{kind}"
    report(options, name, title, rows, claims)


class Bench:
    """The kernels on one device.

    Args:
        device: the device.
        reduced: whether sizes are small.
    """

    def __init__(self, device: torch.device, reduced: bool) -> None:
        self.device, self._reduced = device, reduced
        cuda = device.type == "cuda"
        self.name = torch.cuda.get_device_name(device) if cuda else "CPU"
        self._large = cuda and not reduced
        values = 2**12 if reduced else 2**28 if cuda else 2**24
        self._values = values
        source = torch.ones(values, device=device)
        target = torch.empty_like(source)
        self._rate = 2 * source.nbytes / self._seconds(lambda: target.copy_(source))

    def fishers(self, network: str, dtype: torch.dtype) -> list[Figures]:
        """Return all Fisher methods that a network can have, against a forward pass."""
        torch.manual_seed(0)
        model = CASES[network].build(seed=0).eval()
        few = 4 if self._reduced else 8
        many = 16 if self._reduced else 64 if not self._large else 4096
        small, batches = (self._batches(network, count) for count in (few, many))
        oracle = {scope: _naive(model, small, scope) for scope in ("head", "all")}
        mine = CASES[network].build(seed=0).eval().to(self.device, dtype)
        moved = [self._moved(batch, dtype) for batch in batches]
        seconds = self._seconds(lambda: _forward(mine, moved))
        ways = [("head", "head", False), ("all", "auto", False), ("all", "auto", True)]
        ways += [] if network == "resnet18" else [("all", "vmap", False)]
        rows = []
        for scope, method, factored in ways:
            settings: dict[str, Any] = {"scope": scope, "method": method, "per_class": True}
            settings |= {"factored": factored, "device": self.device}
            found = fisher_diagonal(mine, [self._moved(one, dtype) for one in small], **settings)
            pooled, expected = found.total().values, dict(oracle[scope])
            if factored:
                for name, columns in found.columns.items():
                    expected[name] = expected[name].sum(0)
                    pooled = {**pooled, name: columns.sum(0) / found.counts.sum()}
            taken = self._seconds(lambda: fisher_diagonal(mine, moved, **settings))  # noqa: B023
            what = f"Fisher, {scope}, {'factored' if factored else method}, {network}"
            rows.append(self._row(what, dtype, _error(pooled, expected), taken, seconds, "forward"))
        return rows

    def curvature(self, network: str) -> Figures:
        """Return EK-FAC, whose values along its basis do not depend on signs."""
        torch.manual_seed(0)
        model = CASES[network].build(seed=0).eval()
        batches = self._batches(network, 8 if self._reduced else 4096 if self._large else 64)
        names = [name for name, _ in model.named_parameters() if name.startswith("head")]
        wide = [(inputs.double(), targets) for inputs, targets in batches]
        oracle = measure(CASES[network].build(seed=0).double(), names, wide, torch.device("cpu"))
        mine = model.to(self.device)
        moved = [self._moved(batch, torch.float32) for batch in batches]
        found = measure(mine, names, moved, self.device)
        traces = [
            {path: one.values.double().sum().reshape(1) for path, one in curvature.layers.items()}
            for curvature in (found, oracle)
        ]
        taken = self._seconds(lambda: measure(mine, names, moved, self.device))
        forward = self._seconds(lambda: _forward(mine, moved))
        what = f"EK-FAC of the head, {network}"
        return self._row(what, torch.float32, _error(*traces), taken, forward, "forward")

    def tuning(self, network: str) -> Figures:
        """Return the grid of strengths, whose parameters at one strength are the rule's."""
        torch.manual_seed(0)
        model = CASES[network].build(seed=0).eval().to(self.device)
        batches = self._batches(network, 64 if self._reduced else 4096 if self._large else 512)
        moved = [self._moved(batch, torch.float32) for batch in batches]
        own = {name: model.get_parameter(name).detach() for name in HEAD}
        forget, reference = ({n: torch.rand_like(v) for n, v in own.items()} for _ in "fr")

        def choose() -> None:
            logits = CachedLogits(model, moved, frozenset(own), self.device)
            tune(StrengthGrid(own, forget, reference, heads=[HEAD]), logits, [0], FixedStrength())

        (found,) = StrengthGrid(own, forget, reference, heads=[HEAD])(ALPHA, LAM, [1.0])
        wide = [{n: v.cpu().double() for n, v in one.items()} for one in (own, forget, reference)]
        rule = {"alpha": ALPHA, "lam": LAM, "gauge": 1.0, "heads": [HEAD]}
        expected = unlearn_parameters(*wide, **rule).parameters  # type: ignore[arg-type]
        taken, forward = self._seconds(choose), self._seconds(lambda: _forward(model, moved))
        what = f"tuning of the head, {network}"
        return self._row(what, torch.float32, _error(found, expected), taken, forward, "forward")

    def dampening(self, dtype: torch.dtype) -> Figures:
        """Return dampening of one large tensor: it reads three and writes one."""
        theta = torch.randn(self._values // 1024, 1024, device=self.device).to(dtype)
        forget, reference = (torch.rand(theta.shape, device=self.device) for _ in "fr")
        sides = {"w": forget}, {"w": reference}
        few = theta[:64].clone()
        dampen_({"w": few}, {"w": forget[:64]}, {"w": reference[:64]}, ALPHA, LAM)
        f, r = forget[:64].cpu().double(), reference[:64].cpu().double()
        factor = (LAM * r / f).clamp(max=1.0)
        expected = torch.where(f > ALPHA * r, theta[:64].cpu().double() * factor, theta[:64].cpu())
        taken = self._seconds(lambda: dampen_({"w": theta}, *sides, ALPHA, LAM))
        bound = (2 * theta.nbytes + forget.nbytes + reference.nbytes) / self._rate
        error = _error({"w": few}, {"w": expected})
        return self._row("dampening", dtype, error, taken, bound, "bound")

    def adding(self, dtype: torch.dtype) -> Figures:
        """Return a change of a root added to a large tensor: it reads two and writes one."""
        before = torch.randn(self._values // 1024, 1024, device=self.device).to(dtype)
        change = 1e-3 * torch.randn(before.shape, device=self.device)
        weights = {"w": before.clone()}
        add(weights, [({"w": change}, 0.5)])
        wide = before[:64].cpu().double() + 0.5 * change[:64].cpu().double()
        error = _error({"w": weights["w"][:64]}, {"w": wide.to(dtype)})
        taken = self._seconds(lambda: add({"w": before}, [({"w": change}, 0.5)]))
        bound = (2 * before.nbytes + change.nbytes) / self._rate
        return self._row("change added", dtype, error, taken, bound, "bound")

    def several(self) -> Figures:
        """Return many models of a device at once, against one by one."""
        count, rows, width = (4, 10, 64) if self._reduced else (256, 100, 512)
        stacks = [torch.rand(count, rows, width, device=self.device) for _ in "pr"]
        forget = torch.rand(rows, width, device=self.device)
        rule: dict[str, Any] = {"alpha": ALPHA, "lam": LAM, "gauge": 0.0}

        def together() -> Mapping[str, Tensor]:
            one, other = ({"w": stack} for stack in stacks)
            return unlearn_stacked(one, {"w": forget}, other, **rule).parameters

        def alone(place: int) -> Tensor:
            one, other = ({"w": stack[place]} for stack in stacks)
            return unlearn_parameters(one, {"w": forget}, other, **rule).parameters["w"]

        wide = [{"w": part.cpu().double()} for part in (stacks[0][0], forget, stacks[1][0])]
        expected = unlearn_parameters(*wide, **rule).parameters
        error = _error({"w": together()["w"][0]}, expected)
        taken = self._seconds(together)
        loop = self._seconds(lambda: [alone(place) for place in range(count)])
        return self._row(f"{count} heads together", torch.float32, error, taken, loop, "one by one")

    def _row(
        self,
        kernel: str,
        dtype: torch.dtype,
        error: float,
        seconds: float,
        other: float,
        over: str,
    ) -> Figures:
        return {
            "kernel": kernel if dtype is torch.float32 else f"{kernel}, bfloat16",
            "error": error,
            "allowed": MOST_ERROR[dtype],
            "seconds": seconds,
            "over": over,
            "ratio": seconds / other,
        }

    def _batches(self, network: str, samples: int) -> list[tuple[Tensor, Tensor]]:
        size = 512 if self._large else 64  # fewer leave a GPU without work
        return random_batches(CASES[network], samples, size)

    def _moved(self, batch: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        wide = inputs.is_floating_point()
        return inputs.to(self.device, dtype if wide else None), targets.to(self.device)

    def _seconds(self, run: Callable[[], object]) -> float:
        """Return the median of three calls after one, each until the device has done it.

        On a CPU they are seconds of CPU, which others on the machine distort least.
        """
        clock = time.perf_counter if is_accelerator(self.device) else time.process_time
        taken = []
        for turn in range(2 if self._reduced else 4):
            wait_for(self.device)
            started = clock()
            run()
            wait_for(self.device)
            if turn:
                taken.append(clock() - started)
        return statistics.median(taken)


def _forward(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)


def _naive(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], scope: str
) -> dict[str, Tensor]:
    """Return the Fisher in float64 on the CPU, by one backward pass for each sample."""
    model = model.double()
    names = [n for n, _ in model.named_parameters() if scope == "all" or n in HEAD]
    sums = {name: torch.zeros_like(model.get_parameter(name)) for name in names}
    count = 0
    for inputs, targets in batches:
        inputs = inputs.double() if inputs.is_floating_point() else inputs
        for one, target in zip(inputs, targets, strict=True):
            model.zero_grad()
            F.cross_entropy(model(one[None]), target[None]).backward()
            count += 1
            for name in names:
                gradient = model.get_parameter(name).grad
                if gradient is not None:
                    sums[name] += gradient**2
    return {name: value.detach() / count for name, value in sums.items()}


def _error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest difference beside the largest value of its tensor."""
    worst = 0.0
    for name, value in expected.items():
        difference = (found[name].detach().cpu().double() - value.double()).abs().max()
        worst = max(worst, float(difference / value.double().abs().max().clamp(min=1e-300)))
    return worst


if __name__ == "__main__":
    main()
