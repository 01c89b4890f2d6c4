"""The client protocol: RESP2 and RESP3, as pure functions of bytes.

A connection owns one `CommandParser`. It feeds what the socket gave and gets whole commands back, each a
non-empty list of `bytes`; what is incomplete stays inside the parser. Each reply goes through `encode_reply`
on its way out. The Clerk holds the other end: `encode_command` out, `ReplyParser` in.

Nothing here trusts the other side. A header is a claim, and memory is only spent on bytes that have
arrived. A stream that breaks the protocol gets the sentence that Redis would send, and the connection
closes after the replies to what came before; nobody else notices. What a stream means never depends on how
the network cut it into pieces.

    parser.py   commands in                     (server)
    inline.py   commands typed by hand          (server, for `parser`)
    encode.py   replies out                     (server)
    decode.py   commands out, replies in        (Clerk)

Left out on purpose: streamed RESP3 aggregates and push messages. Neither Redis clients nor our server
send them.
"""
