"""Replies out: a reply value becomes the bytes of RESP2 or RESP3."""

from __future__ import annotations

from balsadb.kv.reply import OK, Mapping, NullArray, Refusal, Reply, Status

_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
"""Line ends become blanks, as in Redis: no text may end its line early and forge another reply."""


def encode_reply(reply: Reply, resp3: bool) -> bytes:
    """Encode one reply for a connection that speaks RESP3, or else RESP2."""
    if type(reply) is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is OK:
        return b"+OK\r\n"
    if type(reply) is int:
        return b":%d\r\n" % reply
    if reply is None:
        return b"_\r\n" if resp3 else b"$-1\r\n"
    parts: list[bytes] = []
    _encode(reply, resp3, parts)
    return b"".join(parts)


def _encode(reply: Reply, resp3: bool, parts: list[bytes]) -> None:
    """Append the encoding of any reply. RESP2 has no form of its own for some; they take Redis' detours."""
    match reply:
        case bytes():
            parts.append(b"$%d\r\n%b\r\n" % (len(reply), reply))
        case None:
            parts.append(b"_\r\n" if resp3 else b"$-1\r\n")
        case bool():
            parts.append((b"#t\r\n" if reply else b"#f\r\n") if resp3 else b":%d\r\n" % reply)
        case int():
            parts.append(b":%d\r\n" % reply)
        case float():
            text = _format_float(reply)
            parts.append(b",%b\r\n" % text if resp3 else b"$%d\r\n%b\r\n" % (len(text), text))
        case Status():
            parts.append(b"+%b\r\n" % reply.text.translate(_LINE_ENDS))
        case Refusal():
            parts.append(b"-%b\r\n" % reply.text.translate(_LINE_ENDS))
        case list():
            parts.append(b"*%d\r\n" % len(reply))
            for item in reply:
                if type(item) is bytes:  # what most lists are made of
                    parts.append(b"$%d\r\n%b\r\n" % (len(item), item))
                else:
                    _encode(item, resp3, parts)
        case Mapping():
            parts.append(b"%%%d\r\n" % len(reply.pairs) if resp3 else b"*%d\r\n" % (2 * len(reply.pairs)))
            for key, value in reply.pairs:
                _encode(key, resp3, parts)
                _encode(value, resp3, parts)
        case NullArray():
            parts.append(b"_\r\n" if resp3 else b"*-1\r\n")


def _format_float(value: float) -> bytes:
    """Write the shortest form that reads back as the same number; whole numbers without a fraction."""
    return repr(value).removesuffix(".0").encode("ascii")
