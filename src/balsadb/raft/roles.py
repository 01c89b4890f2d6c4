"""The four roles, each with only its own data (Raft paper, Figure 4).

    follower -> pre-candidate -> candidate -> leader
        ^____________|______________|__________|

Leaving a role drops its object: no stale vote, progress or read can outlive it. `transitions.py` holds the
only ways from one to another.
"""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """Which role a node has."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"
