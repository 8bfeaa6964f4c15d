"""Messages with the lines of an export of the audit log.

A service waits for each message until it has left, and under load that takes longer than making
it.  So a message holds several lines.
"""

from collections.abc import Iterable, Iterator

from disinherit.v1.coordinator_pb2 import AuditLine


def pack_lines(lines: Iterable[bytes], room: int) -> Iterator[AuditLine]:
    """Yield messages that hold some lines, in their order.

    Args:
        lines: the lines, without their ends.
        room: most bytes of the lines in one message, unless a single one is longer; 0 for one line
            in each message.

    Example:
        >>> [len(one.more) for one in pack_lines([b"a", b"b", b"cc"], 2)]
        [1, 0]
    """
    some: list[bytes] = []
    size = 0
    for line in lines:
        if some and size + len(line) > room:
            yield AuditLine(line=some[0], more=some[1:])
            some, size = [], 0
        some.append(line)
        size += len(line)
    if some:
        yield AuditLine(line=some[0], more=some[1:])


def lines_of(messages: Iterable[AuditLine]) -> Iterator[bytes]:
    """Yield the lines that messages hold, in their order."""
    for message in messages:
        yield message.line
        yield from message.more
