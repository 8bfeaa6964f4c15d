"""What a request sends, what short encodings cost in accuracy, what a broadcast takes in memory.

full, bfloat16, log8  bytes that a device downloads: the merged Fisher of a class, and its message
accuracy              largest change of a forget or retain accuracy on held-out samples, in points,
                      against Fishers as they were computed: a small CNN, each of three classes to
                      forget in turn, Fashion-MNIST
broadcast             50 MB to 10 and to 50 agents that fetch it over mTLS on loopback: what the
                      coordinator's process, which is one of its own, needs at most while it sends
"""

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from head_fisher import CASES
from measuring import Claim, Figures, arguments, memory_in_use, most_memory, report
from torch import Tensor

from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.activity import ActivityFile
from disinherit.client.agent.link import Link
from disinherit.client.agent.runner import TaskAnswer
from disinherit.common.encodings import Encoding
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fiun.unlearning import unlearn_parameters
from disinherit.common.wire.fisher_codes import decode_values, encode_values
from disinherit.common.wire.packets import encode_apart
from disinherit.server.agents.fleet import Fleet, FleetSettings
from disinherit.server.store.database import Database
from disinherit.server.transport.base import Ask
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.networks.networks import NetworkSpec
from disinherit.v1 import agents_pb2
from disinherit.v1 import unlearning_pb2 as pb

ENCODINGS = (Encoding.FULL, Encoding.BFLOAT16, Encoding.LOG8)
SCOPES = ("head", "all")
RULES = {"head": (0.3, 0.1, True), "all": (1.0, 1.0, False)}
"""Scope -> alpha and lambda of the defaults, and whether only the class's rows may be selected."""
FORGOTTEN = (0, 3, 7)
"""Classes to forget, one at a time."""


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows: list[Figures] = []
    for name in ("cnn",) if options.reduced else ("cnn", "resnet18", "transformer"):
        rows += [sizes(name, scope) for scope in SCOPES]
    source, train, held_out = (
        ("digits", 400, 200) if options.reduced else ("fashion-mnist", 6000, 5000)
    )
    changes = accuracy(load_dataset(source), train, held_out)
    claims = []
    for scope, change in changes.items():
        rows.append({"network": f"cnn, {source}, change in points", "scope": scope, **change})
        for encoding, points in change.items():
            what = f"change of an accuracy in points, {encoding}, {scope} scope"
            claims.append(Claim(7, what, points, at_most=0.1))
    megabytes, few, many = (1, 2, 4) if options.reduced else (50, 10, 50)
    used = {owners: broadcast(megabytes, owners) for owners in (few, many)}
    for owners, taken in used.items():
        what = f"{megabytes} MB to {owners} agents, MB of memory"
        rows.append({"network": what, "broadcast": taken / 1e6})
    what = f"coordinator's memory, broadcast to {many} owners / to {few}"
    claims.append(Claim(7, what, used[many] / used[few], at_most=1.2, limit=1.0))
    title = "Wire: bytes a device downloads, changes of accuracy, memory of a broadcast"
    report(options, "wire", title, rows, claims)


def sizes(name: str, scope: str) -> Figures:
    """Return how many bytes a device downloads, per encoding."""
    network = CASES[name].build(seed=0)
    (head,) = network.known_head().layers
    names = head.parameters if scope == "head" else [n for n, _ in network.named_parameters()]
    values = {n: torch.rand(network.get_parameter(n).shape).pow(4) for n in names}
    row: Figures = {"network": name, "scope": scope}
    for encoding in ENCODINGS:
        packet, data = encode_apart(
            values,
            labels=[f"class {i}" for i in range(CASES[name].classes)],
            head_weight=head.weight,
            head_bias=head.bias or "",
            sources=["root"],
            classes=["class 0"],
            samples=1000,
            encoding=encoding,
        )
        task = pb.UnlearnTask(
            request_id="q", fishers=[packet], models=[pb.ModelTask(model_id="m", digest="0" * 64)]
        )
        row[encoding.value] = len(data) + task.ByteSize()
    return row


def accuracy(data: Dataset, train: int, held_out: int) -> dict[str, dict[str, float]]:
    """Return scope -> encoding -> the largest change of an accuracy, in points."""
    torch.manual_seed(0)
    order = torch.randperm(len(data.targets))[: train + held_out]
    inputs, targets = data.inputs[order], data.targets[order]
    network = NetworkSpec.for_dataset("cnn", data).build(seed=0)
    batches = list(zip(inputs[:train].split(64), targets[:train].split(64), strict=True))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for batch, classes in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(batch), classes).backward()
        optimizer.step()
    network.eval()
    (head,) = network.known_head().layers
    changes = {}
    for scope in SCOPES:
        fishers = fisher_diagonal(network, batches, scope=scope, per_class=True)
        parameters = {name: network.get_parameter(name).detach() for name in fishers.sums}
        alpha, lam, only_rows = RULES[scope]
        found: dict[str, list[float]] = {encoding.value: [] for encoding in ENCODINGS}
        for forgotten in FORGOTTEN:
            kept = [c for c in range(len(data.classes)) if c != forgotten]
            forget = fishers.over([forgotten]).values
            for encoding in ENCODINGS:
                sent = decode_values(encode_values(forget, encoding), encoding, "the packet")
                new = unlearn_parameters(
                    parameters,
                    sent,
                    fishers.over(kept).values,
                    alpha=alpha,
                    lam=lam,
                    heads=[(head.weight, head.bias)],
                    forgotten_rows=[forgotten] if only_rows else None,
                ).parameters
                right = _right(network, new, inputs[train:], targets[train:])
                mask = targets[train:] == forgotten
                found[encoding.value] += [
                    100 * right[some].double().mean().item() for some in (mask, ~mask)
                ]
        changes[scope] = {
            name: max(abs(a - b) for a, b in zip(values, found["full"], strict=True))
            for name, values in found.items()
            if name != "full"
        }
    return changes


@torch.inference_mode()
def _right(
    network: torch.nn.Module, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor
) -> Tensor:
    logits = [
        torch.func.functional_call(network, parameters, (some,)) for some in inputs.split(500)
    ]
    return torch.cat(logits).argmax(dim=1) == targets


def broadcast(megabytes: int, owners: int) -> int:
    """Return how many bytes of memory the coordinator needs beyond what it had before it sends."""
    names = [f"owner-{i}" for i in range(owners)]
    with (
        tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder,
        ExitStack() as opened,
    ):
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        coordinator = context.Process(target=serve, args=(there, folder, names, megabytes))
        coordinator.start()
        opened.callback(coordinator.join)
        opened.callback(here.send, None)
        port, enrol_port, tokens = here.recv()
        for name, token in tokens.items():
            config = AgentConfig(
                name,
                f"127.0.0.1:{port}",
                Path(folder) / "authority" / "ca.pem",
                Path(folder) / name,
                "",
                f"127.0.0.1:{enrol_port}",
            )
            opened.enter_context(_agent(config, token))
        used: int = here.recv()
    return used


def serve(pipe: Connection, folder: str, names: list[str], megabytes: int) -> None:
    """Be a coordinator that sends one packet to all owners; tell what that takes."""
    database = Database(Path(folder) / "coordinator.db")
    settings = FleetSettings(
        Path(folder) / "authority", ["127.0.0.1"], "127.0.0.1:0", "127.0.0.1:0", len(names)
    )
    with Fleet(settings, database) as fleet:
        tokens = {name: fleet.enrolment.invite(name) for name in names}
        pipe.send((fleet.server.port, fleet.server.enrol_port, tokens))
        while len(fleet.hub.sessions()) < len(names):
            if pipe.poll(0.05):
                return  # an agent could not be started
        before = memory_in_use()
        data = os.urandom(megabytes * 10**6)
        packet = pb.FisherPacket(digest="0" * 64)
        task = pb.UnlearnTask(request_id="q", fishers=[packet])
        asks = [Ask(name, "train.unlearn", task, {packet.digest: data}) for name in names]
        answers = list(fleet.transport.ask(asks, 600.0))
        if not all(answer.reply for answer in answers):
            raise RuntimeError(f"Expected all agents to answer, but: {answers[0].error}")
        pipe.send(most_memory() - before)
        pipe.recv()  # until the agents have left
    database.close()


@contextmanager
def _agent(config: AgentConfig, token: str) -> Iterator[None]:
    """Connect an agent that downloads what it is sent, keeps nothing, and answers."""
    stop = threading.Event()
    link = Link(config, enrol(config, token), stop, ActivityFile(config.state))

    def work(task: agents_pb2.AgentTask) -> None:
        for fisher in pb.UnlearnTask.FromString(task.task).fishers:
            for _ in link.fetch(fisher.digest, 0):
                pass
        link.answer(TaskAnswer(task.task_id, pb.UnlearnReply().SerializeToString()))

    def submit(task: agents_pb2.AgentTask) -> None:
        threading.Thread(target=partial(work, task), daemon=True).start()

    thread = threading.Thread(target=partial(link.run, submit), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        link.close(partial(_ended, thread), 10.0)


def _ended(thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


if __name__ == "__main__":
    main()
