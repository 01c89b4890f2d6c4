"""The command `balsadb recover` and its flags. `cli.recover` does the work.

Two of its flags can't be given by a variable: what lets a recovery happen must be typed for this one.
"""

from __future__ import annotations

from typing import Annotated

import typer

from balsadb.cli.contact import Contact, with_contact
from balsadb.cli.failing import FAILED
from balsadb.cli.flags import Json, Seconds


@with_contact
def recover(
    contact: Contact,
    directories: Annotated[list[str] | None, typer.Argument(metavar="[DIR]...", show_default=False)] = None,
    confirm: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="Do it: the word that the report ends with, for these very data."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do it although the directories named hold a majority.")
    ] = False,
    timeout: Seconds = 2.0,
    as_json: Json = False,
) -> None:
    """Let a cluster go on that has lost the majority of its nodes for ever.

    Name the data directories that are left, of stopped nodes; without any, the servers that still answer are
    looked at. The report says which node has the longest safe log and what may be lost, and changes nothing.
    With --confirm that node becomes the only voter of the cluster, which gets a new id, so that every other
    node of the old cluster is refused from then on. New nodes join it on empty directories, under new ids.

    \b
    balsadb recover --servers db1:7001,db2:7001,db3:7001
    balsadb recover /var/lib/balsadb
    balsadb recover /var/lib/balsadb /mnt/rescued-disk-of-node-3
    balsadb recover /var/lib/balsadb --confirm node-1-entry-1207-term-7-of-5f3a91bc
    """
    from balsadb.cli import recover as commands

    if directories:
        possible = commands.from_directories(directories, confirm, force, as_json)
    else:
        possible = commands.from_servers(contact, confirm, timeout, as_json)
    if not possible:
        raise typer.Exit(FAILED)
