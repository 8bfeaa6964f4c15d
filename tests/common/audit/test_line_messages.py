"""Lines of an export in messages: none is lost, and no message is larger than it may be."""

from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.audit.line_messages import lines_of, pack_lines


@given(lines=st.lists(st.binary(min_size=1, max_size=9)), room=st.integers(0, 30))
def test_messages_hold_the_lines_in_order(lines: list[bytes], room: int) -> None:
    messages = list(pack_lines(lines, room))
    assert list(lines_of(messages)) == lines
    for message in messages:
        size = len(message.line) + sum(map(len, message.more))
        assert size <= room or not message.more
    sizes = [len(message.line) + sum(map(len, message.more)) for message in messages]
    for size, following in zip(sizes, messages[1:], strict=False):
        assert size + len(following.line) > room  # it did not fit
