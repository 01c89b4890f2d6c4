"""The commands `balsadb member ...` and `balsadb transfer` and their flags. `cli.members` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from balsadb.cli.flags import Json, Seconds, Servers, talks

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See and change who the servers are.")

Node = Annotated[int, typer.Argument(metavar="ID", show_default=False)]
NewNodes = Annotated[list[str], typer.Argument(metavar="ID=PEER-ADDRESS,CLIENT-ADDRESS", show_default=False)]


@app.command(name="list")
@talks
def list_(servers: Servers = None, timeout: Seconds = 5.0, as_json: Json = False) -> None:
    """Show the members, as the leader sees them.

    \b
    balsadb member list
    """
    from balsadb.cli import members

    members.show(servers, timeout, as_json)


@app.command()
@talks
def add(nodes: NewNodes, servers: Servers = None, timeout: Seconds = 120.0, as_json: Json = False) -> None:
    """Make new nodes voters, and wait until they are.

    Each new node is started with `balsadb serve --join`, before or after this. It gets the data first, and
    votes only when it has caught up. A node that is started with --join asks for this by itself.

    \b
    balsadb member add 4=db4:8001,db4:7001
    """
    from balsadb.cli import members

    members.add(servers, timeout, as_json, nodes)


@app.command()
@talks
def remove(
    nodes: Annotated[list[int], typer.Argument(metavar="ID", show_default=False)],
    servers: Servers = None,
    timeout: Seconds = 120.0,
    as_json: Json = False,
) -> None:
    """Remove nodes for good, dead or alive, and wait until it is done. Their ids never come back.

    It is refused when fewer voters than a quorum would be alive afterwards. Stop the process then.

    \b
    balsadb member remove 3
    """
    from balsadb.cli import members

    members.remove(servers, timeout, as_json, nodes)


@app.command()
@talks
def replace(
    old: Node,
    new: Annotated[str, typer.Argument(metavar="ID=PEER-ADDRESS,CLIENT-ADDRESS", show_default=False)],
    servers: Servers = None,
    timeout: Seconds = 120.0,
    as_json: Json = False,
) -> None:
    """Put a new node in the place of another one, dead or alive, in one step, and wait until it is done.

    This is the repair of a node that has lost its log or its identity. Start the new node with
    `balsadb serve --join`, on an empty directory and under a new id, before or after this.

    \b
    balsadb member replace 3 4=db4:8001,db4:7001
    """
    from balsadb.cli import members

    members.replace(servers, timeout, as_json, old, new)


def transfer(
    node: Annotated[int | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
    servers: Servers = None,
    timeout: Seconds = 10.0,
    as_json: Json = False,
) -> None:
    """Hand leadership over to a node, or to the one that is furthest, and print who leads.

    \b
    balsadb transfer
    balsadb transfer 2
    """
    from balsadb.cli import members

    members.transfer(servers, timeout, as_json, node)
