"""One server of the replicated state machine, without its sockets, files and clocks.

A `Replica` holds a Raft node and a state machine and keeps the promise that any server serves any client:

1. Commands reach it as `Request`s: what one connection sent in one piece. Requests of a connection take
   effect in the order sent; a `Lane` sees to that (rule P6).
2. Writes that arrived in one turn of the event loop become **one** payload, tagged with its origin
   (node, boot, sequence), and are proposed to Raft: appended here when this node leads, else sent to the
   leader *addressed to a term* (`proposals.py`, rules P1-P3).
3. Reads that arrived in one turn become **one** read-index question (`reads.py`, rules R1-R4).
4. When the entry with the payload is applied here, its requests are answered from this node's own state;
   when an entry of a later term is applied instead, the payload is dead for ever and its requests are
   proposed again. So a leader's crash is a pause and not an error for clients of the surviving nodes.
5. Now and then what has changed is frozen into a cut for the disk, after which old log may go; and a state
   of another node takes the place of this one's (rules C1-C5).

Everything is decided synchronously inside `Replica.turn`, which returns what the driver has to do.
The server and the simulator run this same object.
"""

from balsadb.replica.limits import ReplicaOptions
from balsadb.replica.replica import Effects, Replica
from balsadb.replica.request import Lane, Request, RequestKind

__all__ = ["Effects", "Lane", "Replica", "ReplicaOptions", "Request", "RequestKind"]
