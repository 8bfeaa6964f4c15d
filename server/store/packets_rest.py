"""What roots answered with, kept so that no root is asked again.

The database has all of a Fisher packet but its tensors (`disinherit.server.store.packets`).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select

from disinherit.server.store.tables import PACKETS, now_us, parse
from disinherit.v1.unlearning_pb2 import FisherPacket


def put_packets(
    db: Connection, request_id: str, root: str, packets: Sequence[FisherPacket]
) -> None:
    """Note what a root answered, in the place of what it answered before."""
    db.execute(delete(PACKETS).where(PACKETS.c.request_id == request_id, PACKETS.c.root == root))
    for position, packet in enumerate(packets):
        described = FisherPacket()
        described.CopyFrom(packet)
        described.ClearField("tensors")
        db.execute(
            insert(PACKETS).values(
                request_id=request_id,
                root=root,
                position=position,
                digest=packet.digest,
                packet=described.SerializeToString(deterministic=True),
                created_us=now_us(),
            )
        )


def find_packets(db: Connection, request_id: str) -> Mapping[str, list[FisherPacket]]:
    """Return root -> what it answered a request with, without the tensors."""
    found: dict[str, list[FisherPacket]] = {}
    query = (
        select(PACKETS)
        .where(PACKETS.c.request_id == request_id)
        .order_by(PACKETS.c.root, PACKETS.c.position)
    )
    for row in db.execute(query):
        found.setdefault(row.root, []).append(parse(FisherPacket, row.packet))
    return found
