"""Replay of a training: the app's own train function again, without some samples.

It gets the message that it got, the state that the random generators had, and loaders that leave
samples out.  These come from the app's own `data` function, which the train function has to call by
a name of its own module, as `from task import load_data` makes one.  Whether a replay is exact is
not believed but seen: without leaving out anything, it has to give the update bit for bit.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset

from disinherit.common.errors import DataError
from disinherit.flower.app_samples import AppSamples
from disinherit.flower.functions import AppFunctions
from disinherit.flower.trainings import Training
from disinherit.server.recording.flower_updates import tensors

TrainFunction = Callable[[Message, Context], Message]


def generator_states() -> dict[str, Any]:
    """Return the states of the random generators, as JSON can hold them."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": bytes(torch.get_rng_state().numpy()).hex(),
        "random": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
    }


@contextmanager
def _with_states(states: Mapping[str, Any]) -> Iterator[None]:
    """Set the random generators to some states during the block."""
    before = generator_states()
    try:
        _set_states(states)
        yield
    finally:
        _set_states(before)


def _set_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(states["torch"]), dtype=torch.uint8))
    version, keys, gauss = states["random"]
    random.setstate((version, tuple(keys), gauss))
    kind, numbers, *rest = states["numpy"]
    np.random.set_state((kind, np.array(numbers, dtype=np.uint32), *rest))


class TrainingReplay:
    """Replays the trainings of a node.

    Args:
        functions: of the app.
        train: the train function of the app; `None` if it has none.
        message: the Flower message that is being answered, whose sender a reply would go to.
        context: its context.
    """

    def __init__(
        self,
        functions: AppFunctions,
        train: TrainFunction | None,
        message: Message,
        context: Context,
    ) -> None:
        self._functions = functions
        self._train = train
        self._message = message
        self._context = context

    def run(
        self,
        version: str,
        training: Training,
        start: Mapping[str, Tensor],
        without: Collection[str],
    ) -> dict[str, Tensor]:
        """Return what a training gives without some samples.

        Args:
            version: of the update.
            training: its training.
            start: the weights that it began with.
            without: ids of the samples.

        Raises:
            DataError: if the train function cannot be called again like this, or fails.
        """
        if self._train is None or not training.arrays:
            raise DataError(self._cannot(version, "not all of the message that it got is kept"))
        names = self._places()
        if not names:
            called = getattr(self._functions.data, "__name__", "data")
            raise DataError(
                self._cannot(version, f"the app's train function does not call {called} by name")
            )
        content = RecordDict(
            {
                **{name: ConfigRecord(dict(told)) for name, told in training.told.items()},
                training.arrays: ArrayRecord(dict(start)),
            }
        )
        context = Context(
            self._context.run_id,
            self._context.node_id,
            dict(training.node_config),
            RecordDict(),
            dict(training.run_config),
        )
        space = self._train.__globals__
        before = {name: space[name] for name in names}
        try:
            space.update(dict.fromkeys(names, self._loading(version, frozenset(without))))
            with _with_states(training.states):
                reply = self._train(Message(content, reply_to=self._message), context)
        except DataError:
            raise
        except Exception as error:  # of the app's functions
            raise DataError(
                self._cannot(version, "the app's train function failed"),
                foreign=f"{type(error).__name__}: {error}",
            ) from error
        finally:
            space.update(before)
        arrays = dict(reply.content.array_records)
        if not arrays:
            raise DataError(self._cannot(version, "its reply has no arrays"))
        return tensors(arrays.get("arrays", next(iter(arrays.values()))))

    def _places(self) -> list[str]:
        """Return the names by which the module of the train function calls the data function."""
        space: Mapping[str, object] = getattr(self._train, "__globals__", {})
        return [name for name, value in space.items() if value is self._functions.data]

    def _loading(self, version: str, without: frozenset[str]) -> Callable[..., object]:
        def load(*given: object, **named: object) -> object:
            loaded = self._functions.data(*given, **named)
            if not without:
                return loaded
            if isinstance(loaded, tuple) and loaded:
                return (self._left(version, loaded[0], without), *loaded[1:])
            return self._left(version, loaded, without)

        return load

    def _left(self, version: str, loader: object, without: frozenset[str]) -> object:
        """Return a loader like another, without some samples."""
        samples = AppSamples(loader, f"data of {version}", self._functions.batch)
        rest = [place for place, id in enumerate(samples.ids) if id not in without]
        if not isinstance(loader, DataLoader):
            return list(samples.some(rest))
        shuffled = type(loader.sampler) is RandomSampler
        plain = shuffled and not loader.sampler.replacement  # type: ignore[attr-defined]
        if loader.batch_size is None or not (plain or type(loader.sampler) is SequentialSampler):
            raise DataError(self._cannot(version, "its loader draws samples in a way of its own"))
        return DataLoader(
            Subset(loader.dataset, rest),
            loader.batch_size,
            shuffle=shuffled,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            drop_last=loader.drop_last,
            worker_init_fn=loader.worker_init_fn,
            generator=loader.generator,
        )

    @staticmethod
    def _cannot(version: str, why: str) -> str:
        return f"Expected the training of {version!r} to be repeated, but {why}."
