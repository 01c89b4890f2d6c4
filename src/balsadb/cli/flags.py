"""Flags that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Servers = Annotated[
    str | None,
    typer.Option(
        "--servers",
        metavar="HOST:PORT,...",
        envvar="BALSADB_SERVERS",
        help="Where the servers are; a port may be a range.  [default: 127.0.0.1:7001-7003]",
    ),
]
Seconds = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", envvar="BALSADB_TIMEOUT", min=0.01, help="How long to try."),
]
Json = Annotated[bool, typer.Option("--json", envvar="BALSADB_JSON", help="Print JSON.")]
