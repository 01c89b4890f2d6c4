"""The command `balsadb bench` and its flags. `cli.bench` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from balsadb.cli.contact import Contact, with_contact
from balsadb.cli.flags import Json
from balsadb.errors import UsageError


@with_contact
def bench(
    contact: Contact,
    operation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="set|get|append|incr|mixed",
            envvar="BALSADB_OPERATION",
            help="What to do; several, one after the other, by repeating it. mixed is half set, half get.  "
            "[default: set, get]",
        ),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=1, max=10_000, envvar="BALSADB_CLIENTS", help="How many connections.")
    ] = 64,
    pipeline: Annotated[
        int,
        typer.Option(min=1, max=4096, envvar="BALSADB_PIPELINE", help="Commands that each has in flight."),
    ] = 1,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, envvar="BALSADB_SECONDS", help="How long to measure each operation."),
    ] = 10.0,
    keys: Annotated[
        int, typer.Option(min=1, max=10**9, envvar="BALSADB_KEYS", help="Keys, of which each is as likely.")
    ] = 10_000,
    value_bytes: Annotated[
        int,
        typer.Option(
            min=0,
            max=8 * 1024 * 1024,
            envvar="BALSADB_VALUE_BYTES",
            help="Random bytes of what set writes and append appends.",
        ),
    ] = 256,
    leader: Annotated[
        bool,
        typer.Option("--leader", envvar="BALSADB_LEADER", help="All clients at the leader, as by default."),
    ] = False,
    spread: Annotated[
        bool, typer.Option("--spread", envvar="BALSADB_SPREAD", help="Spread clients over all servers.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="N",
            envvar="BALSADB_RATE",
            help="Begin N operations a second, whatever the servers do.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", envvar="BALSADB_KEEP", help="Do not remove the keys at the end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load a running cluster and print how fast it was.

    It only touches keys below bench: and a random word, and removes them at the end. Its clients are plain
    connections, as those of a Redis client, and what they see is counted: a refused command is an error, and
    the exit status is 1 when there was one. Ctrl-C ends it with a table of what was measured.

    Without --rate each client sends again when it has its answer, so a server that stands still is asked
    less, and its pause counts as one slow operation. With --rate operations become due at that rate and
    latency counts from when an operation was due, not from when a client was free to send it: a pause counts
    for everybody that it would have kept waiting (no coordinated omission). Latencies are right to 0.4 %.

    \b
    balsadb bench
    balsadb bench --servers db1:7001,db2:7001,db3:7001 --spread --clients 300 --seconds 60
    balsadb bench --operation incr --operation mixed --pipeline 16
    balsadb bench --operation set --rate 5000 --json
    """
    from balsadb.cli import bench as commands

    if leader and spread:
        raise UsageError("--leader and --spread exclude each other")
    options = commands.BenchOptions(
        operations=operation or ("set", "get"),
        clients=clients,
        pipeline=pipeline,
        seconds=seconds,
        keys=keys,
        value_bytes=value_bytes,
        spread=spread,
        rate=rate,
        keep=keep,
    )
    if status := commands.bench(contact, options, as_json):
        raise typer.Exit(status)
