"""The whole inheritance graph as encoded messages, joined from its rows.

Rows hold messages that are encoded already, and most are the same as when the graph was last asked
for.  So a part of them is parsed only if it is new, to see that it is sound.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, select

from disinherit.common.graph.proto import SCHEMA_VERSION
from disinherit.server.store.queries import Query
from disinherit.server.store.remembering import remembered
from disinherit.server.store.tables import EDGES, MODELS, join_rows, parse
from disinherit.v1.graph_pb2 import Graph

_PART = 500
"""Rows that are checked together; of usual size, they are few enough bytes to be remembered."""

_MESSAGE_BYTES = 1 << 20
"""Size of a message, unless one part is larger: a service waits for each until it has left."""

_ALL_RECORDS = Query(select(MODELS.c.record).order_by(MODELS.c.created_us, MODELS.c.id))
_ALL_EDGES = Query(select(EDGES.c.edge))
_HEAD = Graph(schema_version=SCHEMA_VERSION).SerializeToString()


def graph_messages(db: Connection) -> Iterator[bytes]:
    """Yield the whole inheritance graph as encoded `Graph` messages: versions by age, then edges.

    All rows are read at once, so that the messages are from one snapshot.

    Args:
        db: a transaction; everything is read before this returns.

    Raises:
        StoreError: if a row is damaged.
    """
    return _messages(_ALL_RECORDS.scalars(db, {}), _ALL_EDGES.scalars(db, {}))


def _messages(records: Sequence[bytes], edges: Sequence[bytes]) -> Iterator[bytes]:
    for field, rows in (("models", records), ("edges", edges)):
        number = Graph.DESCRIPTOR.fields_by_name[field].number
        some: list[bytes] = []
        for start in range(0, len(rows), _PART):
            part = join_rows(number, rows[start : start + _PART], _HEAD)
            _check(part)
            if some and sum(map(len, some)) + len(part) > _MESSAGE_BYTES:
                yield b"".join(some)
                some = []
            some.append(part)
        if some:
            yield b"".join(some)


@remembered
def _check(part: bytes) -> None:
    """Check that a part is sound.

    Raises:
        StoreError: if a row is damaged.
    """
    parse(Graph, part)
