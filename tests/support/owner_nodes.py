"""Nodes of a Flower federation that run an owner's ClientApp, with registered keys.

Import it before anything of Flower: what Flower itself imports may warn.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.fake_grid import FakeGrid, Node  # first of all that imports Flower

from flwr.app import Context, Message, RecordDict  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip


def make_owner_grid(app: ClientApp, owners: Sequence[str], folder: Path) -> FakeGrid:
    """A node for each owner, whose keys are in `owners.toml` of the folder of their models.

    Args:
        app: what every node runs, configured with `owner` and `folder`.
        owners: names of the owners.
        folder: where they keep their models.
    """
    grid = FakeGrid({7 + place: _node(app, owner, folder) for place, owner in enumerate(owners)})
    lines = ["[owners]"]
    for node, owner in zip(grid.nodes, owners, strict=True):
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        grid.keys[node] = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        lines.append(f'{owner} = "{grid.keys[node].decode()}"')
    (folder / "owners.toml").write_text("\n".join(lines))
    return grid


def _node(app: ClientApp, owner: str, folder: Path) -> Node:
    config: dict[str, bool | float | int | str] = {"owner": owner, "folder": str(folder)}

    def answer(message: Message) -> Message:
        return app(message, Context(1, 7, config, RecordDict(), {}))

    return answer
