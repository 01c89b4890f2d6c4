"""What replies that a client does not read take of memory.

They wait as references to values, and a value that several replies share is there once. So they are weighed
by the objects that they keep alive, which takes a look at each; that is done only while a client does not
read.
"""

from __future__ import annotations

from collections.abc import Iterable

from balsadb.kv.reply import Mapping, Refusal, Reply, Status
from balsadb.replica.request import Request

REPLY_BYTES = 16
"""What a reply takes besides the bytes of its value, at least."""


def unread_bytes(waiting: Iterable[bytes | Request]) -> int:
    """Return the bytes of everything that stands in line, encoded or not."""
    seen: set[int] = set()
    size = 0
    for item in waiting:
        if isinstance(item, bytes):
            size += REPLY_BYTES + len(item)
        elif item.replies is not None:
            size += sum(_weigh(reply, seen) for reply in item.replies)
    return size


def _weigh(reply: Reply, seen: set[int]) -> int:
    match reply:
        case bytes():
            text = reply
        case Status() | Refusal():
            text = reply.text
        case list():
            return REPLY_BYTES + sum(_weigh(item, seen) for item in reply)
        case Mapping():
            return REPLY_BYTES + sum(_weigh(item, seen) for pair in reply.pairs for item in pair)
        case _:
            return REPLY_BYTES
    if id(text) in seen:
        return REPLY_BYTES
    seen.add(id(text))
    return REPLY_BYTES + len(text)
