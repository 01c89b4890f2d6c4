"""What the server remembers about one client connection, as far as commands see or change it."""

from __future__ import annotations


class ClientState:
    """One client connection, without its socket.

    The listener makes one per connection (or subclasses it) and keeps the counters up to date. Commands
    change only `name`, `lib_name`, `lib_version`, `resp3`, `readonly`, `no_evict`, `no_touch` and `user`.
    """

    __slots__ = (
        "address",
        "created_ms",
        "failed_logins",
        "id",
        "last_command",
        "last_command_ms",
        "lib_name",
        "lib_version",
        "local_address",
        "name",
        "no_evict",
        "no_touch",
        "queued",
        "readonly",
        "resp3",
        "user",
    )

    def __init__(self, id: int, address: str = "", *, local_address: str = "", created_ms: int = 0) -> None:
        self.id = id
        """Unique on this node while the process lives; 1 or greater."""
        self.address = address
        """host:port of the client's end."""
        self.local_address = local_address
        """host:port of the server's end."""
        self.created_ms = created_ms
        """Wall time at which the connection was accepted."""
        self.last_command_ms = created_ms
        """Wall time of the last command, for `idle` in CLIENT LIST; set once per piece of input."""
        self.last_command = b""
        """Name of the last command as the client wrote it; empty before the first."""
        self.user = b"default"
        """As whom it has logged in; empty when it has to and has not."""
        self.failed_logins = 0
        """How many wrong passwords have come over it."""
        self.queued = -1
        """Commands queued in an open MULTI; -1 outside of one."""
        self.name = b""
        """Set by CLIENT SETNAME; empty when there is none."""
        self.lib_name = b""
        """Name of the client library, by CLIENT SETINFO."""
        self.lib_version = b""
        """Version of the client library, by CLIENT SETINFO."""
        self.resp3 = False
        """True after HELLO 3: replies are encoded as RESP3 from the reply to that HELLO on."""
        self.readonly = False
        """True after READONLY: reads may be served from this node's own, possibly stale, state (rule R4)."""
        self.no_evict = False
        """CLIENT NO-EVICT; remembered and shown, without effect: this server evicts no clients."""
        self.no_touch = False
        """CLIENT NO-TOUCH; remembered and shown, without effect: keys carry no access times."""

    def reset(self) -> None:
        """Forget what commands have set, as RESET does. Identity and counters stay, and the user as
        well: what becomes of that is the connection's matter."""
        self.name = b""
        self.resp3 = False
        self.readonly = False
        self.no_evict = False
        self.no_touch = False
        self.queued = -1
