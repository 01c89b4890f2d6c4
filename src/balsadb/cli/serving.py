"""The command `balsadb serve` and its flags. `cli.serve` does the work."""

from __future__ import annotations

from typing import Annotated

import typer


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
    max_clients: Annotated[
        int | None,
        typer.Option(envvar="BALSADB_MAX_CLIENTS", help="Clients at once.  [default: 10000]"),
    ] = None,
    max_clients_per_address: Annotated[
        int | None,
        typer.Option(
            envvar="BALSADB_MAX_CLIENTS_PER_ADDRESS",
            help="Clients of one address at once; 0: no other bound.  [default: 0]",
        ),
    ] = None,
    client_idle_ms: Annotated[
        int | None,
        typer.Option(
            envvar="BALSADB_CLIENT_IDLE_MS",
            help="When a client that says nothing is closed; 0: never.  [default: 0]",
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="BALSADB_TLS_CERT",
            help="Certificate that clients are shown; the client port then speaks TLS only.",
        ),
    ] = None,
    tls_key: Annotated[
        str | None,
        typer.Option(metavar="FILE", envvar="BALSADB_TLS_KEY", help="Its private key."),
    ] = None,
    tls_ca: Annotated[
        str | None,
        typer.Option(metavar="FILE", envvar="BALSADB_TLS_CA", help="CAs of the clients' certificates."),
    ] = None,
    tls_client_cert: Annotated[
        str | None,
        typer.Option(
            metavar="yes|optional|no",
            envvar="BALSADB_TLS_CLIENT_CERT",
            help="Must clients show one?  [default: yes with a CA, else no]",
        ),
    ] = None,
    peer_tls_cert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="BALSADB_PEER_TLS_CERT",
            help="Certificate of this node, which names it balsadb://node/ID, for other servers.",
        ),
    ] = None,
    peer_tls_key: Annotated[
        str | None,
        typer.Option(metavar="FILE", envvar="BALSADB_PEER_TLS_KEY", help="Its private key."),
    ] = None,
    peer_tls_ca: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="BALSADB_PEER_TLS_CA",
            help="The CA of all servers, which signs for nobody else.",
        ),
    ] = None,
    peer_secret_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="BALSADB_PEER_SECRET_FILE",
            help="A secret that all servers prove to know; the same on every node.",
        ),
    ] = None,
    password_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="BALSADB_PASSWORD_FILE",
            help="File with the password that clients need, the same on every node, for its owner alone.",
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure", envvar="BALSADB_INSECURE", help="Open ports to other machines without all that."
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

    A node that other machines can reach must be told how it knows them: see docs/security.md.
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
        "max_clients": max_clients,
        "max_clients_per_address": max_clients_per_address,
        "client_idle_ms": client_idle_ms,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_ca": tls_ca,
        "tls_client_cert": tls_client_cert,
        "peer_tls_cert": peer_tls_cert,
        "peer_tls_key": peer_tls_key,
        "peer_tls_ca": peer_tls_ca,
        "peer_secret_file": peer_secret_file,
        "password_file": password_file,
        "insecure": insecure,
        "log_format": log_format,
    }
    run(settings, config)
