"""One process of the database: the replica with its sockets, files, threads and clock.

    node.py          opens the data directory, wires the parts, listens and stops
    config.py        settings, checked before anything is opened
    driver.py        the drive loop: what happens goes in, what the replica decides is done
    disk.py          the thread that makes writes durable
    cuts.py          brings cuts to the state on disk
    snapshots.py     the state, sent to followers and taken from a leader; backups.py gives it to an operator
    peers.py         connections between servers; admission.py says who may talk to us
    listener.py      the client port; connection.py is one client, intake.py makes requests of commands
    commands/        what a node answers by itself
    http.py          health, and the way to a backup

Nothing is decided here that could differ between two runs of the same inputs: that is the replica's part.
docs/architecture/server.md tells how the parts work together.
"""
