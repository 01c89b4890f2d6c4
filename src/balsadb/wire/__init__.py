"""What servers say to each other, as pure functions of bytes.

A connection between two servers has one direction. Who dials says `Hello`: which cluster, which node, which
data directory. The other side answers `Welcome`, or `Refused` with a sentence, and says nothing more. After
a welcome the dialler sends frames of Raft messages until the connection closes. With a shared secret both
prove before the answer that they know it (`proof.py`).

Each frame has a length, a checksum, a group and a type; its body is MessagePack, decoded by msgspec straight
into the types of `raft/messages.py`. The length is checked before anything is kept (4 KiB before the hello,
72 MiB after), the checksum before anything is decoded, and types and ranges while decoding. So a port
scanner, a browser, a wrong version or a broken network card closes one connection and does nothing else.

Who checks what (bad inputs 39-41):

    here            length, checksum, group, frame type, body types, ranges of all numbers, and that a message
                    comes from the node that said hello and is meant for this one
    server          protocol version, cluster, node and store ids in the hello
    raft            removed members, terms, indexes against the log, and the bytes of each entry

Encryption is not done here: TLS lies below, if it is used (`server/trust.py`). A checksum guards against
accidents, not against intent; without TLS nothing guards what follows the greeting against somebody on the
path.
"""
