"""The request of a run: for classes, or for their samples where changes of roots are handed down.

A root's change is that of samples, or of all that it was trained on.  So every affected model that
was trained on samples of the classes is a root then, as it is in the retraining to compare with.
"""

from pathlib import Path

from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SampleDigests, digest_samples
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import share_out

_SALT_DIGITS = 32


def request_of(settings: Settings, folder: Path) -> Request:
    """Return the request of a run; the same folder gives the same request.

    Args:
        settings: of the run.
        folder: of the run, whose models are trained.
    """
    asked = settings.request()
    if not settings.method.settled(by_class=True).inherits_delta:
        return asked
    spaces = label_spaces(settings.scenario, share_out(settings).dataset)
    forgetting = Forgetting(settings, spaces)
    samples: dict[str, SampleDigests] = {}
    for model in forgetting.affected:
        trained_without = forgetting.classes_left_out(model, replay=False)
        classes = [
            name
            for name in forgetting.classes_left_out(model, replay=True)
            if name not in trained_without
        ]
        index = settings.scenario.owner_of(model, settings.clients)
        with SimulatedOwner(settings, index, folder) as owner:
            ids = owner.sample_ids_of(classes)
            if ids:
                key = sample_key(owner.store.root)
                samples[model] = digest_samples(key, settings.digest[:_SALT_DIGITS], ids)
    return Request(id=asked.id, reason=asked.reason, samples=samples, method=asked.method)
