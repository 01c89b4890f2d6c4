"""How a command gets at the servers: where they are, and as whom it logs in.

A command has one parameter `contact`, and `with_contact` makes the flags of it that all such commands share.
A password is never an argument, which everybody on the machine could read: it comes from a file or variable.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from balsadb.address import is_loopback
from balsadb.cli.flags import Servers, talks
from balsadb.client.ask import ask
from balsadb.client.call import Address
from balsadb.client.credentials import Credentials, make_credentials
from balsadb.client.servers import server_addresses
from balsadb.client.words import Word
from balsadb.errors import UsageError
from balsadb.password_file import check_password, read_password_file

PASSWORD_VARIABLE: Final = "BALSADB_PASSWORD"

User = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", envvar="BALSADB_USER", help="Log in as.  [default: default]"),
]
PasswordFile = Annotated[
    str | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        envvar="BALSADB_PASSWORD_FILE",
        help=f"File with the password, which {PASSWORD_VARIABLE} may also hold.",
    ),
]


@dataclass(frozen=True)
class Contact:
    """Where the servers of a command are, and as whom it logs in."""

    servers: str | None = None
    """As given by the flag or variable; None: those of `balsadb demo`."""
    credentials: Credentials | None = None

    @property
    def addresses(self) -> list[Address]:
        """Return where the servers are. Raises UsageError."""
        return server_addresses(self.servers)

    @property
    def advice(self) -> str:
        """Say what to do when nobody answers on this very machine."""
        return "; start one: balsadb demo" if is_loopback(self.addresses) else ""

    def ask(self, address: Address, command: Sequence[Word], seconds: float) -> Any:
        """Ask one server; see `client.ask`."""
        return ask(address, command, seconds, self.credentials)


def find_credentials(user: str | None, password_file: str | None) -> Credentials | None:
    """Return as whom to log in; None: as nobody. Raises UsageError."""
    password: bytes | None = None
    if password_file is not None:
        password = read_password_file(password_file)
    elif given := os.environ.get(PASSWORD_VARIABLE):
        password = check_password(os.fsencode(given), PASSWORD_VARIABLE)
    if password is None and user is not None:
        raise UsageError(f"--user needs a password; give it with --password-file FILE or {PASSWORD_VARIABLE}")
    return make_credentials(user, password)


def with_login(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command flags in the place of its parameter `credentials`."""
    flags = {"user": User, "password_file": PasswordFile}
    return talks(_replace(command, "credentials", find_credentials, flags))


def with_contact(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command flags in the place of its parameter `contact`."""

    def make(servers: str | None, user: str | None, password_file: str | None) -> Contact:
        return Contact(servers, find_credentials(user, password_file))

    flags = {"servers": Servers, "user": User, "password_file": PasswordFile}
    return talks(_replace(command, "contact", make, flags))


def _replace(
    command: Callable[..., Any], name: str, make: Callable[..., Any], flags: dict[str, Any]
) -> Callable[..., Any]:
    """Replace a parameter of a command by flags that it is made of, where Typer looks for them."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        given[name] = make(**{flag: given.pop(flag) for flag in flags})
        return command(**given)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == name:
            parameters += [inspect.Parameter(f, kind, default=None, annotation=flags[f]) for f in flags]
        else:
            parameters.append(parameter.replace(kind=kind))
    new = signature.replace(parameters=parameters)
    run.__signature__ = new  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
