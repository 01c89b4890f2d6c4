"""The `balsadb` command: a thin shell around the Clerk, the server and local clusters.

    main.py      the commands with their flags and help; errors become sentences and exit statuses
    data.py      get, put, append, del: one call of a BlockingClerk each
    observe.py   status and digest: one question to every server
    backup.py    backup and restore: the state of a node becomes a file, and a file a node
    inspect.py   what a data directory holds
    bench.py     a load generator; its clients are in loops.py, what they send in load.py
    serve.py     flags, variables and file become a configuration, which a server runs
    demo.py      a cluster of real processes, and who leads it
    sim.py       simulated clusters by seed
    failing.py   how a command fails: a sentence and a status

Exit status: 0 success, 1 the operation failed, 2 wrong usage; `sim`, and a server that stops itself, have
more. A command imports what it needs when it runs, so that `balsadb get` does not wait for server parts or
for a table printer that it never uses.
"""
