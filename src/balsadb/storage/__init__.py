"""What a node keeps on disk: its identity in `META`, the write-ahead log of its Raft peer, and a state.

    files.py     the one door to the file system; the simulator stands behind it too
    records.py   bytes of the log: records, batches, segment headers
    index.py     where each entry lies
    segments.py  files of the log: names, zero-filled segments ahead of need
    recovery.py  pure: what the bytes of the segments mean after a crash, and when not to start
    wal.py       plan, execute, complete, read
    meta.py      bytes of META
    datadir.py   lock, META, layout
    state.py     the state on disk; opening.py puts log and state together, transfer.py sends states
    backup.py    a whole state in one file; restore.py makes a node of it
    inspect.py   what is there, without touching it; view.py reads states and keys so

docs/disk-format.md has every byte; docs/architecture/storage.md has the story and the reasons.
"""
