"""Protected mode: a node that everybody could reach, and nobody must prove anything to, does not start.

Whoever reaches the client port of an open node can read and change everything, and whoever reaches its peer
port can rewrite the database. On loopback that is only this machine. Beyond it a node demands to be told how
it is to know its peers and its clients, or that its network is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from balsadb.address import is_loopback, parse_address
from balsadb.errors import UsageError
from balsadb.server.journal import journal

if TYPE_CHECKING:
    from balsadb.server.config import ServeConfig


def knows_peers(config: ServeConfig) -> bool:
    """Tell whether other servers must prove who they are."""
    return config.peer_tls_cert is not None or config.peer_secret_file is not None


def knows_clients(config: ServeConfig) -> bool:
    """Tell whether clients must prove something: by a certificate, or by a password."""
    return config.client_certificates == "yes" or _has_passwords(config)


def _has_passwords(config: ServeConfig) -> bool:
    return config.password_file is not None


def check(config: ServeConfig) -> None:
    """Refuse to open a port to everybody. Raises UsageError; warns where somebody wants just that."""
    problems: dict[str, str] = {}
    if is_exposed(config.peer_listen) and not knows_peers(config):
        problems["a peer"] = (
            f"--peer-listen {config.peer_listen} can be reached from other machines, and whoever reaches it "
            "can rewrite the database; give --peer-tls-cert, --peer-tls-key and --peer-tls-ca, or "
            "--peer-secret-file"
        )
    if is_exposed(config.listen):
        if config.tls_cert is None and not _has_passwords(config):
            problems["a client"] = (
                f"--listen {config.listen} can be reached from other machines, and whoever reaches it can "
                "read and change everything; give --tls-cert, --tls-key and --tls-ca, or --password-file"
            )
        elif not knows_clients(config):
            journal.say(
                "caution",
                "warning",
                message=f"connections to {config.listen} are encrypted, but whoever reaches it can read and "
                "change everything; --tls-ca has clients show a certificate",
            )
    if not problems:
        return
    if not config.insecure:
        raise UsageError(
            "; ".join(problems.values())
            + ". If nobody but members and clients can reach this network: --insecure"
        )
    roles = " and as ".join(problems)
    journal.say(
        "caution", "warning", message=f"--insecure: nothing is asked of whoever reaches this node, as {roles}"
    )


def is_exposed(address: str) -> bool:
    """Tell whether other machines can reach what listens at an address."""
    return not is_loopback([parse_address(address)])
