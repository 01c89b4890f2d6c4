"""The commands of `balsadb` and their flags.

Every flag is also a variable: `--base-port` is BALSADB_BASE_PORT. The work is done elsewhere, and imported
only by the command that needs it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from balsadb.cli import benching, membership, recovery
from balsadb.cli.failing import FAILED, sentences
from balsadb.cli.flags import Json, Seconds, Servers
from balsadb.errors import UsageError
from balsadb.version import __version__

app = typer.Typer(
    name="balsadb",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it starts faster, and pipes and copies well
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

app.add_typer(membership.app, name="member")
Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False)]
Value = Annotated[str, typer.Argument(metavar="VALUE", show_default=False)]


def main() -> None:
    """Run the command line and leave with its status."""
    with sentences():
        if not __debug__:
            raise UsageError("BalsaDB does not run under python -O: its assertions are part of its safety")
        app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"balsadb {__version__}")
        raise typer.Exit


@app.callback()
def balsadb(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """BalsaDB, a fault-tolerant, linearizable key-value database that speaks the Redis protocol.

    \b
    balsadb demo                       three servers on this machine
    balsadb put greeting hello         talk to them
    balsadb status                     see who leads
    """


@app.command()
def demo(
    nodes: Annotated[
        int | None, typer.Option(min=1, envvar="BALSADB_NODES", help="How many servers.  [default: 3]")
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            envvar="BALSADB_DIR",
            help="Keep the data here, or use what is here again.",
        ),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            envvar="BALSADB_BASE_PORT",
            help="First client port; peers are 1000 above, HTTP 2000.  [default: 7001]",
        ),
    ] = None,
) -> None:
    """Run a cluster of real processes on this machine.

    It ends with Ctrl-C, or when the terminal closes, and leaves no process behind.

    \b
    balsadb demo
    balsadb demo --nodes 5 --dir ./my-cluster --base-port 7101
    """
    from balsadb.cli.demo import demo as run

    run(nodes, directory, base_port)


@app.command()
def serve(
    id: Annotated[int | None, typer.Option(envvar="BALSADB_ID", help="This node's id, 1 or greater.")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", envvar="BALSADB_DATA_DIR", help="Where its data is.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="BALSADB_LISTEN", help="Where clients connect.")
    ] = None,
    peer_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="BALSADB_PEER_LISTEN",
            help="Where other servers connect.  [default: as in --cluster]",
        ),
    ] = None,
    http_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="BALSADB_HTTP_LISTEN",
            help="Where the dashboard, /metrics, /readyz and others answer.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="1=HOST:PORT,2=HOST:PORT,...",
            envvar="BALSADB_CLUSTER",
            help="Peer addresses of all initial members; the same text on every node.",
        ),
    ] = None,
    dial: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=HOST:PORT",
            envvar="BALSADB_DIAL",
            help="Reach a peer at another address than its own (NAT, proxies). May be repeated.",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="BALSADB_ADVERTISE",
            help="What clients are told as this node's address.  [default: --listen]",
        ),
    ] = None,
    election_timeout_ms: Annotated[
        int | None,
        typer.Option(
            envvar="BALSADB_ELECTION_TIMEOUT_MS", help="Silence until a new leader is sought.  [default: 500]"
        ),
    ] = None,
    heartbeat_ms: Annotated[
        int | None,
        typer.Option(
            envvar="BALSADB_HEARTBEAT_MS", help="How often the leader says that it lives.  [default: 50]"
        ),
    ] = None,
    snapshot_log_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            envvar="BALSADB_SNAPSHOT_LOG_BYTES",
            help="Log kept before a snapshot; a segment file is a quarter of it.  [default: 64MiB]",
        ),
    ] = None,
    request_timeout_ms: Annotated[
        int | None,
        typer.Option(
            envvar="BALSADB_REQUEST_TIMEOUT_MS",
            help="When a request without an outcome is answered with an error.  [default: 2500]",
        ),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="BALSADB_JOIN",
            help="For a new node: the client address of any server of the cluster that it joins.",
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="text|json",
            envvar="BALSADB_LOG_FORMAT",
            help="How the lines on standard error are written.  [default: text]",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.toml",
            envvar="BALSADB_CONFIG",
            help="File with any of these settings, named like the flags. Flags and variables win.",
        ),
    ] = None,
) -> None:
    """Run one server.

    Ends with 0 after SIGTERM, 2 when the settings make no sense or an address is taken, and 3 when it can't
    trust its data or its disk; it should not be started again by itself then.

    \b
    balsadb serve --id 1 --data-dir /var/lib/balsadb --listen db1:7001 --http-listen db1:9001 \\
                  --cluster 1=db1:8001,2=db2:8001,3=db3:8001
    balsadb serve --id 4 --data-dir /var/lib/balsadb --listen db4:7001 --peer-listen db4:8001 --join db1:7001
    balsadb serve --config node-1.toml
    """
    from balsadb.cli.serve import serve as run

    settings = {
        "id": id,
        "data_dir": data_dir,
        "listen": listen,
        "peer_listen": peer_listen,
        "http_listen": http_listen,
        "cluster": cluster,
        "join": join,
        "dial": dial,
        "advertise": advertise,
        "election_timeout_ms": election_timeout_ms,
        "heartbeat_ms": heartbeat_ms,
        "snapshot_log_bytes": snapshot_log_bytes,
        "request_timeout_ms": request_timeout_ms,
        "log_format": log_format,
    }
    run(settings, config)


@app.command()
def get(key: Key, servers: Servers = None, timeout: Seconds = 10.0) -> None:
    """Print the value of a key. Without such a key: print nothing, exit status 1.

    \b
    balsadb get greeting
    """
    from balsadb.cli import data

    if not data.get(servers, timeout, key):
        raise typer.Exit(FAILED)


@app.command()
def put(key: Key, value: Value, servers: Servers = None, timeout: Seconds = 10.0) -> None:
    """Set a key to a value.

    \b
    balsadb put greeting hello
    balsadb put -- -key -value         what begins with a dash goes after --
    """
    from balsadb.cli import data

    data.put(servers, timeout, key, value)


@app.command()
def append(key: Key, value: Value, servers: Servers = None, timeout: Seconds = 10.0) -> None:
    """Append to the value of a key and print its new length.

    \b
    balsadb append greeting ' world'
    """
    from balsadb.cli import data

    data.append(servers, timeout, key, value)


@app.command(name="del")
def delete(
    keys: Annotated[list[str], typer.Argument(metavar="KEY", show_default=False)],
    servers: Servers = None,
    timeout: Seconds = 10.0,
) -> None:
    """Delete keys and print how many of them there were.

    \b
    balsadb del greeting farewell
    """
    from balsadb.cli import data

    data.delete(servers, timeout, keys)


@app.command()
def status(
    servers: Servers = None,
    timeout: Seconds = 2.0,
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", envvar="BALSADB_WATCH", help="Show it again every second.")
    ] = False,
) -> None:
    """Show every server: its role, its term, and how far it has got.

    \b
    balsadb status
    balsadb status --watch
    balsadb status --json | jq '.servers[] | select(.role == "leader")'
    """
    from balsadb.cli import observe

    observe.status(servers, timeout, as_json, watch)


@app.command()
def doctor(servers: Servers = None, timeout: Seconds = 2.0, as_json: Json = False) -> None:
    """Say what is wrong with the cluster, and what to do about it.

    Ends with status 0 when nothing is, 1 when something is wrong though the cluster serves, 3 when it does
    not serve or can't be trusted.

    \b
    balsadb doctor
    balsadb doctor --json | jq -r '.findings[].problem'
    """
    from balsadb.cli import doctor as doctoring

    raise typer.Exit(doctoring.doctor(servers, timeout, as_json))


@app.command()
def digest(servers: Servers = None, timeout: Seconds = 10.0, as_json: Json = False) -> None:
    """Check that all servers hold the same state.

    The whole replicated state is hashed on every server right after the same log entry.

    \b
    balsadb digest
    """
    from balsadb.cli import observe

    if not observe.digest(servers, timeout, as_json):
        raise typer.Exit(FAILED)


app.command()(membership.transfer)


@app.command()
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="HOST:PORT,...",
            envvar="BALSADB_FROM",
            help="HTTP ports of servers; the first that can gives the data.  [default: 127.0.0.1:9001-9003]",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", envvar="BALSADB_TIMEOUT", min=0.01, help="How long a server may be silent."
        ),
    ] = 90.0,
    verify: Annotated[
        bool, typer.Option("--verify", envvar="BALSADB_VERIFY", help="Check a file that is there, instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write all data of a running cluster into a new file.

    Everything that was acknowledged before the command began is in the backup, and it is the state right
    after one entry of the log. The file is checked before it gets its name.

    \b
    balsadb backup monday.balsa
    balsadb backup monday.balsa --from db2:9001,db3:9001
    balsadb backup --verify monday.balsa
    """
    from balsadb.cli import backup as commands

    if verify:
        commands.verify(file, as_json)
    else:
        commands.backup(file, source, timeout, as_json)


@app.command()
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False)],
    id: Annotated[int | None, typer.Option(envvar="BALSADB_ID", help="The new node's id.")] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", envvar="BALSADB_DATA_DIR", help="Its data directory; empty or not there."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="1=HOST:PORT,2=HOST:PORT,...",
            envvar="BALSADB_CLUSTER",
            help="Peer addresses of all members of the new cluster; the same text on every node.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.toml",
            envvar="BALSADB_CONFIG",
            help="The node's configuration, which may hold all of these.",
        ),
    ] = None,
) -> None:
    """Make the data directory of a node of a new cluster from a backup.

    Run it once for every node, each time with the same file, and then start all nodes. The new cluster gets
    an id of its own, and nodes of the old one are refused.

    \b
    balsadb restore monday.balsa --id 1 --data-dir /var/lib/balsadb \\
                    --cluster 1=db1:8001,2=db2:8001,3=db3:8001
    balsadb restore monday.balsa --config node-1.toml
    """
    from balsadb.cli import backup as commands

    commands.restore(file, {"id": id, "data_dir": data_dir, "cluster": cluster}, config)


app.command()(recovery.recover)
app.command()(benching.bench)


@app.command()
def inspect(
    directory: Annotated[str, typer.Argument(metavar="DIR", show_default=False)],
    keys: Annotated[
        bool, typer.Option("--keys", envvar="BALSADB_KEYS", help="Print the keys, one on each line.")
    ] = False,
    prefix: Annotated[
        str, typer.Option(metavar="TEXT", envvar="BALSADB_PREFIX", help="Only keys that begin with this.")
    ] = "",
    get: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="BALSADB_GET", help="Print the value of a key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a data directory holds: identity, log, state, damage. Never writes; the node may run.

    Keys and values are as of the last entry that this node knows to be committed. Ends with 1 when a node
    would not start on the directory.

    \b
    balsadb inspect /var/lib/balsadb
    balsadb inspect /var/lib/balsadb --json
    balsadb inspect /var/lib/balsadb --keys --prefix user:
    balsadb inspect /var/lib/balsadb --get user:1
    """
    from balsadb.cli import inspect as commands

    if get is not None:
        sound = commands.get(directory, get)
    elif keys or prefix:
        commands.keys(directory, prefix)
        sound = True
    else:
        sound = commands.inspect(directory, as_json)
    if not sound:
        raise typer.Exit(FAILED)


@app.command()
def sim(
    seed: Annotated[
        int | None,
        typer.Option(envvar="BALSADB_SEED", min=0, help="Run this seed, or many from it on."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(envvar="BALSADB_RUNS", min=1, help="Run this many seeds.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(envvar="BALSADB_MINUTES", min=0.01, help="Run seeds for this long.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", envvar="BALSADB_TRACE", help="Print every event of the seed.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(envvar="BALSADB_JOBS", min=1, help="Processes to use.  [default: one per processor]"),
    ] = None,
) -> None:
    """Run simulated clusters, with faults, and check every promise.

    A seed decides everything: cluster, faults and clients. The same seed always gives the same run. Ends
    with 0 when all passed, 10 when a promise was broken, 11 when a healed cluster stood still, and 12 when a
    node crashed.

    \b
    balsadb sim --seed 42
    balsadb sim --seed 42 --trace
    balsadb sim --runs 500
    balsadb sim --minutes 30
    """
    from balsadb.cli import sim as simulator

    simulator.sim(seed, runs, minutes, trace, jobs)
