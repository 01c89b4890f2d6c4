"""Consensus: many servers agree on one log, and go on while a majority of them lives.

This package is the Raft algorithm (Ongaro and Ousterhout 2014; Ongaro's thesis 2014) without anything
around it: messages go in, a `Ready` comes out. It opens no file or socket, reads no clock and draws no
random number of its own, so the same inputs always give the same outputs and a simulator can replay them.

How a proposal travels:

1. `Node.propose` appends it to the leader's log in memory (`replication.py`), or sends it to the leader.
2. `Node.ready` hands out one `WriteBatch` for the disk and one `Append` per follower; both work at once.
3. A follower checks that the entries fit (`following.py`), writes them, and acknowledges what is verified
   **and** durable. Promises about the disk are held back inside the core until `Node.persisted`
   (`durability.py`), so that no driver can send one too early.
4. When a quorum (`quorum.py`) has an entry of the leader's own term on disk, it is committed, and with it
   all before it. `Ready.committed` hands it to the state machine (`applying.py`) on every node.

How the cluster stays led: a node that misses its leader asks for pre-votes, then for votes
(`election.py`); a leader that misses its quorum steps down. How a read is answered without a log entry:
`reads.py`. Which role may follow which: `transitions.py`; what each of them remembers: `roles.py`. What
all rules share: `core.py`. What must never be violated: `invariants.py`.

How the log ends at its beginning: a durable state takes the place of old entries (`Node.compact`), and a
follower that needs those is named in `Ready.snapshots`, so that the driver sends it the state. How a leader
leaves without a pause: `handover.py`.

What is left out, and its price: voters change only by hand-made joint steps, and learners are not promoted.
"""
