"""Flags that several commands share."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from balsadb.client.tls import CA_VARIABLE, CERT_VARIABLE, KEY_VARIABLE

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

_TLS_FLAGS = {
    CA_VARIABLE: ("--tls-ca", 'The CAs of the servers\' certificates; "system": those of this machine.'),
    CERT_VARIABLE: ("--tls-cert", "The certificate for servers that ask for one."),
    KEY_VARIABLE: ("--tls-key", "Its private key."),
}


def talks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that talks to servers the flags for TLS.

    What they say goes into their variables, where everything that makes a connection looks anyway.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        for variable in _TLS_FLAGS:
            if value := options.pop(variable.lower()):
                os.environ[variable] = value
        command(*args, **options)

    signature = inspect.signature(command, eval_str=True)
    parameters = [
        inspect.Parameter(
            variable.lower(),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(flag, metavar="FILE", envvar=variable, help=text)],
        )
        for variable, (flag, text) in _TLS_FLAGS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run
