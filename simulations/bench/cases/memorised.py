"""Which training samples a model can know only by heart: those that other samples do not predict.

The criterion is cross-validated confidence.  A sample that a network trained on the other half of
the data gives a low probability of its own label is atypical or mislabelled, and what a network
trained on it says of it is memorised (after Feldman and Zhang, arXiv 2008.03703).
"""

import torch
from torch import Tensor

from disinherit.common.models.devices import pick_device
from disinherit.simulations.data.splits import seeded_generator
from disinherit.simulations.run.training import train
from disinherit.simulations.scenario.settings import OWNER_THREADS, Settings
from disinherit.simulations.scenario.shares import SharedData, TensorBatches


def least_predictable(
    settings: Settings, data: SharedData, indices: Tensor, count: int
) -> tuple[int, ...]:
    """Return the samples whose label is the least predictable from the others'.

    Args:
        settings: of the run; its network and training.
        data: of the run.
        indices: samples to choose from, in the pool.
        count: how many to return, at most half of them.

    Returns:
        Pool indices in ascending order.
    """
    order = torch.from_numpy(seeded_generator(settings.seed).permutation(len(indices)))
    halves = indices[order].tensor_split(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)
    try:
        confidence = torch.cat(
            [_confidence(settings, data, halves[1 - i], half) for i, half in enumerate(halves)]
        )
    finally:
        torch.set_num_threads(threads)
    lowest = confidence.argsort(stable=True)[:count]
    return tuple(torch.cat(halves)[lowest].sort().values.tolist())


def _confidence(settings: Settings, data: SharedData, known: Tensor, held_out: Tensor) -> Tensor:
    """Return the probability `[n]` of the held-out samples' labels after training on the others."""
    dataset = data.dataset
    network = settings.network_spec(dataset).build(settings.seed)
    batches = TensorBatches(dataset.inputs[known], dataset.targets[known], settings.batch_size)
    device = pick_device(settings.device)
    train(network, batches, settings, settings.seed, device)
    network.eval()
    with torch.inference_mode():
        logits = torch.cat(
            [network(part.to(device)).cpu() for part in dataset.inputs[held_out].split(256)]
        )
    targets = dataset.targets[held_out].unsqueeze(1)
    return logits.softmax(dim=1).gather(1, targets).squeeze(1)
